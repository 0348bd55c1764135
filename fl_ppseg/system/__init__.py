"""The ground that everything stands on: errors, files and folders, processes, the command line.

Knows nothing of images, keys or models, and imports no framework.
"""
