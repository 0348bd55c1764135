"""`shuffle-spatial`: pixels move, triples stay whole."""

import numpy as np
from cipher_cases import (
    KEY,
    assert_uniform,
    geometries,
    laws,
    make_image,
    pixels_of,
    scopes,
    subkeys,
)
from hypothesis import given

from fl_ppseg.crypto.ciphers.cipher import Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.shuffle_spatial import ShuffleSpatial
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry


@laws
@given(geometries(), scopes, subkeys)
def test_the_pixels_of_every_block_survive(
    geometry: Geometry, scope: Scope, subkey: SubKey
) -> None:
    image = make_image(geometry)
    size = geometry.block_size
    secret = encrypt(image, subkey, "shuffle-spatial", block_size=size, scope=scope)
    for plain, ciphertext in zip(pixels_of(image, size), pixels_of(secret, size), strict=True):
        assert sorted(map(tuple, plain)) == sorted(map(tuple, ciphertext))


@laws
@given(geometries(), subkeys)
def test_all_channels_move_alike(geometry: Geometry, subkey: SubKey) -> None:
    permutation = ShuffleSpatial().draw(subkey, geometry, "per-block").permutation
    assert permutation.shape == (geometry.num_blocks, geometry.block_length)
    by_channel = permutation.reshape(geometry.num_blocks, 3, -1).astype(int)
    num_pixels = geometry.block_size**2
    starts = np.arange(3)[:, None] * num_pixels
    assert (by_channel - starts == by_channel[:, :1]).all()
    assert (np.sort(by_channel[:, 0]) == np.arange(num_pixels)).all()


def test_all_orders_of_four_pixels_are_equally_likely() -> None:
    permutation = ShuffleSpatial().draw(KEY, Geometry(3, 2, 40, 60), "per-block").permutation
    assert_uniform(permutation[:, :4], 24)


def test_blocks_of_more_than_65536_values() -> None:
    permutation = ShuffleSpatial().draw(KEY, Geometry(3, 150, 1, 1), "common").permutation
    assert (np.sort(permutation) == np.arange(3 * 150**2)).all()
