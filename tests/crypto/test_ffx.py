"""`ffx`: a Feistel network by hand, and what it does to half of the values of a block."""

import numpy as np
import pytest
from cipher_cases import KEY, assert_uniform, geometries, laws, make_image, scopes, subkeys
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.crypto.ciphers.cipher import Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.ffx import FFX, FFXParameters, feistel_codebook
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry, to_blocks


@pytest.mark.parametrize(
    ("tables", "value", "expected"),
    [
        ([[0] * 16], 0x12, 0x21),  # F = 0: the halves swap
        ([[0] * 16] * 2, 0x12, 0x12),
        ([[1] * 16], 0x12, 0x20),  # (1, 2) -> (2, 1 ^ 1)
        ([list(range(16))], 0x12, 0x23),  # (1, 2) -> (2, 1 ^ 2)
        ([list(range(16)), [1] * 16], 0x12, 0x33),  # -> (3, 2 ^ 1)
    ],
)
def test_the_network_by_hand(tables: list[list[int]], value: int, expected: int) -> None:
    assert feistel_codebook(np.array([tables], np.uint8))[0, value] == expected


@laws
@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_every_network_is_a_permutation_of_the_bytes(num_rounds: int, seed: int) -> None:
    tables = np.random.default_rng(seed).integers(0, 16, (3, num_rounds, 16), np.uint8)
    assert (np.sort(feistel_codebook(tables)) == np.arange(256)).all()


def test_codebook_and_mask_by_hand() -> None:
    codebook = np.roll(np.arange(256, dtype=np.uint8), -1)[None]  # v -> v + 1
    parameters = FFXParameters(
        mask=np.array([[255, 0, 255]], np.uint8),
        codebook=codebook,
        inverse=np.roll(np.arange(256, dtype=np.uint8), 1)[None],
    )
    blocks = np.array([[1, 2, 3], [255, 255, 0]], np.uint8)
    assert FFX().apply(blocks, parameters).tolist() == [[2, 2, 4], [0, 255, 1]]
    assert FFX().invert(blocks, parameters).tolist() == [[0, 2, 2], [254, 255, 255]]


@laws
@given(geometries(), scopes, subkeys)
def test_half_of_each_block_goes_through_one_codebook(
    geometry: Geometry, scope: Scope, subkey: SubKey
) -> None:
    image, size = make_image(geometry), geometry.block_size
    secret = encrypt(image, subkey, "ffx", block_size=size, scope=scope)
    mask, codebook, inverse = FFX().draw(subkey, geometry, scope)
    assert (mask.sum(axis=1) // 255 == geometry.block_length // 2).all()
    assert set(np.unique(mask)) <= {0, 255}
    assert (np.take_along_axis(inverse, codebook, axis=1) == np.arange(256)).all()
    blocks = to_blocks(image, size)
    expected = np.where(mask == 255, codebook[np.arange(len(codebook))[:, None], blocks], blocks)
    np.testing.assert_array_equal(to_blocks(secret, size), expected)


def test_codebooks_look_random() -> None:
    """Any value becomes any other equally often, and two near values differ by any difference."""
    _, codebook, _ = FFX().draw(KEY, Geometry(3, 1, 50, 100), "per-block")
    for value in (0, 200):
        assert_uniform(codebook[:, value], 256)
    for near in (1, 16):
        assert_uniform(codebook[:, 0] ^ codebook[:, near], 255)


def test_one_round_would_not_do() -> None:
    """The statistic above sees it: after one round the left half is the old right half."""
    tables = np.random.default_rng(0).integers(0, 16, (5000, 1, 16), np.uint8)
    codebook = feistel_codebook(tables)
    assert len(np.unique(codebook[:, 0] ^ codebook[:, 16])) == 1


def test_positions_are_uniform() -> None:
    mask, _, _ = FFX().draw(KEY, Geometry(3, 1, 20, 30), "per-block")
    assert_uniform(mask, 3)
