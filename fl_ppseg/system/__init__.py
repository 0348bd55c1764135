"""The base of all packages: errors, files and folders, processes, the command line.

It knows nothing about images, keys or models, and imports no framework.
"""
