"""Perceptual ciphers: draw parameters from a key, apply them to an image's blocks, invert exactly.

A new cipher is one file with a class that satisfies `Cipher`, and one line of `registry.CIPHERS`.
"""
