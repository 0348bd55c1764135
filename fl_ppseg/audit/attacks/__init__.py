"""The attacks, one per file. Each names its adversary, its method, and when it must succeed.

Images are (n, 3, H, W) uint8, plain, encrypted and reconstructed alike; the values of a block stand
in the order (C, y, x). Nothing here can import a key, a vault or the audit's own truth.
"""
