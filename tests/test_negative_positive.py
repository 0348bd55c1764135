"""`negative-positive`: exactly half of the values change sign."""

import numpy as np
import torch
from cipher_cases import KEY, assert_uniform, geometries, laws, make_image, scopes, subkeys
from hypothesis import given

from fl_ppseg.blocks import Geometry, to_blocks
from fl_ppseg.ciphers import Scope, encrypt
from fl_ppseg.ciphers.negative_positive import NegativePositive, NegativePositiveParameters
from fl_ppseg.keys import SubKey
from fl_ppseg.pixels import to_input


def test_by_hand() -> None:
    blocks = np.array([[0, 10, 200], [255, 127, 128]], np.uint8)
    common = NegativePositiveParameters(np.array([[255, 0, 255]], np.uint8))
    per_block = NegativePositiveParameters(np.array([[255, 0, 255], [0, 255, 0]], np.uint8))
    assert NegativePositive().apply(blocks, common).tolist() == [[255, 10, 55], [0, 127, 127]]
    assert NegativePositive().apply(blocks, per_block).tolist() == [[255, 10, 55], [255, 128, 128]]
    assert NegativePositive().invert(blocks, common).tolist() == [[255, 10, 55], [0, 127, 127]]


@laws
@given(geometries(), scopes, subkeys)
def test_exactly_half_of_each_block_is_inverted(
    geometry: Geometry, scope: Scope, subkey: SubKey
) -> None:
    """v = 255 - v has no solution in whole numbers, so every inverted value shows."""
    image, size = make_image(geometry), geometry.block_size
    secret = encrypt(image, subkey, "negative-positive", block_size=size, scope=scope)
    changed = secret != image
    assert (secret[changed] == 255 - image[changed]).all()
    num_changed = (to_blocks(secret, size) != to_blocks(image, size)).sum(axis=1)
    assert (num_changed == geometry.block_length // 2).all()


def test_inversion_is_a_change_of_sign_to_the_model() -> None:
    image = make_image(Geometry(3, 8, 2, 3))
    secret = encrypt(image, KEY, "negative-positive", block_size=8, scope="per-block")
    plain, sealed = (to_input(torch.from_numpy(each)[None])[0] for each in (image, secret))
    sign = torch.from_numpy(np.where(secret == image, 1, -1))
    assert torch.equal(sealed, sign * plain)


def test_all_halves_are_equally_likely() -> None:
    mask = NegativePositive().draw(KEY, Geometry(3, 2, 100, 120), "per-block").mask
    assert_uniform(mask, 924)  # 6 of 12 positions
    mask = NegativePositive().draw(KEY, Geometry(3, 1, 20, 30), "per-block").mask
    assert_uniform(mask, 3)  # 1 of 3
