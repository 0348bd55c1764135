"""The order that a key leaves: what the cipher did to the pixels, and labels with them."""

import numpy as np
import pytest

from fl_ppseg.crypto.ciphers.cipher import SCOPES, Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.pixel_moves import moves_whole_pixels, pixel_order
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.system.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 32, 48)).astype(np.uint8)
KEY = SubKey.from_bytes(bytes(range(32)))
WHOLE = (
    "shuffle-spatial",
    "shuffle-spatial+negative-positive",
    "negative-positive+shuffle-spatial",
)


def magnitudes(image: np.ndarray) -> np.ndarray:
    return np.abs(2 * image.astype(int) - 255)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("cipher", WHOLE)
def test_the_order_is_the_one_that_the_cipher_left(cipher: str, scope: Scope) -> None:
    encrypted = encrypt(IMAGE, KEY, cipher, block_size=8, scope=scope)
    order = pixel_order(cipher, KEY, (32, 48), 8, scope)
    np.testing.assert_array_equal(order.permuted(magnitudes(IMAGE)), magnitudes(encrypted))
    np.testing.assert_array_equal(order.restored(magnitudes(encrypted)), magnitudes(IMAGE))


def test_another_key_leaves_another_order() -> None:
    one, other = (
        pixel_order(WHOLE[0], k, (32, 48), 8, "per-block") for k in (KEY, SubKey.generate())
    )
    assert not np.array_equal(one.permuted(IMAGE), other.permuted(IMAGE))


@pytest.mark.parametrize(
    "cipher",
    [
        *(name for name in CIPHERS if name != "shuffle-spatial"),
        "shuffle-spatial+ffx",
        "etc+shuffle-spatial",
    ],
)
def test_other_ciphers_have_none(cipher: str) -> None:
    assert not moves_whole_pixels(cipher)
    with pytest.raises(InputError, match="does not keep pixels whole"):
        pixel_order(cipher, KEY, (32, 48), 8, "per-block")


@pytest.mark.parametrize("cipher", WHOLE)
def test_those_that_permute_pixels_and_invert_have_one(cipher: str) -> None:
    assert moves_whole_pixels(cipher)
