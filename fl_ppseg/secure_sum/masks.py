"""Masks: ChaCha20 keystreams (RFC 8439) under keys from X25519 (RFC 7748) and HKDF (RFC 5869).

A mask is as long as the model and is added one tensor after the other: it is never held as a whole.
Of a pair of clients, the one whose name sorts first adds their mask and the other subtracts it.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.ring import Words

LABEL: Final = b"fl_ppseg/secure-sum/v1/"
"""Begins whatever is hashed, signed or derived here."""
KEY_BYTES: Final = 32
PIECE: Final = 2**16
"""Words of a keystream at a time: they stay in the processor's cache."""
_ZEROS: Final = memoryview(bytes(4 * PIECE))


class Keystream:
    """The words of one mask, in order."""

    __slots__ = ("_encryptor", "_is_subtracted")

    def __init__(self, key: bytes, *, is_subtracted: bool = False) -> None:
        """Start at the first word.

        Args:
            key: 32 bytes that no other mask has.
            is_subtracted: Whether this side takes the mask off instead of adding it.
        """
        self._encryptor = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
        self._is_subtracted = is_subtracted

    def __repr__(self) -> str:
        return "Keystream()"

    def apply(self, words: Words, buffer: bytearray) -> None:
        """Add the next words of the mask to (n,) words in place, or take them off.

        Args:
            words: At most `PIECE`.
            buffer: `4 * PIECE` bytes to work in.
        """
        self._encryptor.update_into(_ZEROS[: 4 * len(words)], buffer)
        mask = np.frombuffer(buffer, "<u4", len(words))
        (np.subtract if self._is_subtracted else np.add)(words, mask, out=words)


def derive(secret: bytes, salt: bytes, label: str) -> bytes:
    """32 bytes of HKDF-SHA256 for one purpose."""
    return HKDF(SHA256(), KEY_BYTES, salt, LABEL + label.encode()).derive(secret)


def agree(own: X25519PrivateKey, peer: bytes, salt: bytes, label: str) -> bytes:
    """The key of two parties for one purpose.

    Raises:
        SumError: The peer's public key is of no use.
    """
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:  # of small order, which nobody draws by chance
        raise SumError("a public key that no honest client has") from None
    return derive(shared, salt, label)


def transcript(
    roster: bytes, members: Sequence[str], weights: str, exponent: int, weighting: str
) -> bytes:
    """32 bytes that all nodes of a round agree on, or else their masks do not cancel.

    Args:
        roster: Digest of the roster, which holds the session.
        members: Clients whose updates are asked for.
        weights: Hash of the weights that were received.
        exponent: Of the ring's step.
        weighting: What an update is multiplied by.
    """
    content = json.dumps([roster.hex(), sorted(members), weights, exponent, weighting])
    return hashlib.sha256(LABEL + b"transcript\0" + content.encode()).digest()


def pair_mask(
    own: X25519PrivateKey, names: tuple[str, str], peer_key: bytes, script: bytes
) -> Keystream:
    """The mask between two clients.

    Args:
        own: The mask key of this side.
        names: Of this side and of the peer.
        peer_key: The peer's public mask key.
        script: Of `transcript`.

    Raises:
        SumError: As `agree`.
    """
    label = "pair/" + json.dumps(sorted(names))
    return Keystream(agree(own, peer_key, script, label), is_subtracted=names[0] > names[1])


def self_mask(seed: bytes, script: bytes, *, is_subtracted: bool = False) -> Keystream:
    """A client's own mask, which the coordinator takes off if the client's update was added."""
    return Keystream(derive(seed, script, "self"), is_subtracted=is_subtracted)


def apply_all(masks: Sequence[Keystream], words: Words) -> None:
    """Apply the next words of several masks to a tensor (...) in place."""
    if not words.flags.c_contiguous:
        raise SumError("expected a tensor whose values lie one after the other")
    flat = words.reshape(-1)
    buffer = bytearray(4 * PIECE)
    for start in range(0, len(flat), PIECE):
        for mask in masks:
            mask.apply(flat[start : start + PIECE], buffer)
