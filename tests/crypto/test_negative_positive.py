"""`negative-positive`: each value changes sign or not, by a bit of its own."""

import numpy as np
import torch
from cipher_cases import KEY, assert_uniform, geometries, laws, make_image, scopes, subkeys
from hypothesis import given

from fl_ppseg.crypto.ciphers.cipher import Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.negative_positive import NegativePositive, NegativePositiveParameters
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry
from fl_ppseg.data.pixels import to_input


def test_by_hand() -> None:
    blocks = np.array([[0, 10, 200], [255, 127, 128]], np.uint8)
    common = NegativePositiveParameters(np.array([[255, 0, 255]], np.uint8))
    per_block = NegativePositiveParameters(np.array([[255, 0, 255], [0, 255, 0]], np.uint8))
    assert NegativePositive().apply(blocks, common).tolist() == [[255, 10, 55], [0, 127, 127]]
    assert NegativePositive().apply(blocks, per_block).tolist() == [[255, 10, 55], [255, 128, 128]]
    assert NegativePositive().invert(blocks, common).tolist() == [[255, 10, 55], [0, 127, 127]]


@laws
@given(geometries(), scopes, subkeys)
def test_values_are_inverted_or_left_as_they_are(
    geometry: Geometry, scope: Scope, subkey: SubKey
) -> None:
    image, size = make_image(geometry), geometry.block_size
    secret = encrypt(image, subkey, "negative-positive", block_size=size, scope=scope)
    assert ((secret == image) | (secret == 255 - image)).all()


def test_inversion_is_a_change_of_sign_to_the_model() -> None:
    image = make_image(Geometry(3, 8, 2, 3))
    secret = encrypt(image, KEY, "negative-positive", block_size=8, scope="per-block")
    plain, ciphertext = (to_input(torch.from_numpy(each)[None])[0] for each in (image, secret))
    sign = torch.from_numpy(np.where(secret == image, 1, -1))
    assert torch.equal(ciphertext, sign * plain)


def test_all_subsets_are_equally_likely() -> None:
    mask = NegativePositive().draw(KEY, Geometry(3, 2, 100, 250), "per-block").mask
    assert set(np.unique(mask).tolist()) == {0, 255}
    assert_uniform(mask, 2**12)
    mask = NegativePositive().draw(KEY, Geometry(3, 1, 20, 30), "per-block").mask
    assert_uniform(mask, 2**3)


def test_neighbours_in_the_stream_are_inverted_independently() -> None:
    """Of blocks of 64 pixels: two values, in one byte or not, of one block or of two."""
    mask = NegativePositive().draw(KEY, Geometry(3, 8, 50, 100), "per-block").mask
    for pair in (mask[:, [0, 1]], mask[:, [7, 8]], mask[:, [0, 191]]):
        assert_uniform(pair, 4)
    assert_uniform(np.stack([mask[:-1, 191], mask[1:, 0]], axis=1), 4)
