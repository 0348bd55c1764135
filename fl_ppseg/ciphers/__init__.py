"""Perceptual ciphers: draw parameters from a key, apply them to an image's blocks, invert exactly.

A new cipher is one file with a class that satisfies `Cipher`, and one line of `registry.CIPHERS`.
"""

from fl_ppseg.ciphers.cipher import SCOPES, Cipher, Effect, Scope
from fl_ppseg.ciphers.encryption import decrypt, decrypt_batch, encrypt, encrypt_batch
from fl_ppseg.ciphers.invariance import invariant_form, surviving_form
from fl_ppseg.ciphers.registry import CIPHERS, get_cipher

__all__ = [
    "CIPHERS",
    "SCOPES",
    "Cipher",
    "Effect",
    "Scope",
    "decrypt",
    "decrypt_batch",
    "encrypt",
    "encrypt_batch",
    "get_cipher",
    "invariant_form",
    "surviving_form",
]
