"""Masks against RFC 8439's keystream, and that they cancel only where all agree."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.masks import PIECE, Keystream, apply_all, pair_mask, self_mask, transcript


def test_a_keystream_is_that_of_rfc_8439() -> None:
    # Appendix A.1, test vector 1: zero key, zero nonce, block counter 0.
    words = np.zeros(4, np.uint32)
    Keystream(bytes(32)).apply(words, bytearray(4 * PIECE))
    assert words.tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def keys() -> tuple[X25519PrivateKey, X25519PrivateKey]:
    first, second = (X25519PrivateKey.from_private_bytes(bytes([n] * 32)) for n in (1, 2))
    return first, second


def pair(script_a: bytes, script_b: bytes, size: int) -> np.ndarray:
    a, b = keys()
    public = [key.public_key().public_bytes_raw() for key in (a, b)]
    words = np.zeros(size, np.uint32)
    apply_all([pair_mask(a, ("aachen", "bochum"), public[1], script_a)], words)
    assert words.any()
    apply_all([pair_mask(b, ("bochum", "aachen"), public[0], script_b)], words)
    return words


@pytest.mark.parametrize("size", [1, 7, PIECE, PIECE + 3])
def test_the_masks_of_a_pair_cancel(size: int) -> None:
    assert not pair(bytes(32), bytes(32), size).any()


def test_they_do_not_where_the_two_got_different_weights() -> None:
    scripts = [transcript(bytes(32), ("a", "b"), w, -30, "examples") for w in ("00", "01")]
    assert np.count_nonzero(pair(scripts[0], scripts[1], 1000)) == 1000


def test_a_transcript_names_all_that_masks_depend_on() -> None:
    base = (bytes(32), ("a", "b"), "00", -30, "examples")
    others = [
        (bytes([1] * 32), *base[1:]),
        (base[0], ("a", "c"), *base[2:]),
        (*base[:2], "01", *base[3:]),
        (*base[:3], -29, base[4]),
        (*base[:4], "equal"),
    ]
    assert len({transcript(*each) for each in (base, *others)}) == 6


def test_a_mask_goes_on_from_tensor_to_tensor() -> None:
    whole, parts = np.zeros(10, np.uint32), [np.zeros(n, np.uint32) for n in (3, 0, 7)]
    apply_all([self_mask(bytes(32), bytes(32))], whole)
    stream = self_mask(bytes(32), bytes(32))
    for part in parts:
        apply_all([stream], part)
    assert (np.concatenate(parts) == whole).all()


def test_a_public_key_of_small_order_is_refused() -> None:
    with pytest.raises(SumError, match="no honest client has"):
        pair_mask(keys()[0], ("aachen", "bochum"), bytes(32), bytes(32))
