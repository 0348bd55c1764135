"""`etc`: each sub-block of a ciphertext is found among all that can be made of the plain block."""

from itertools import permutations

import numpy as np
import pytest
from cipher_cases import KEY, Bytes, assert_uniform, make_image, tiled

from fl_ppseg.crypto.ciphers.cipher import SCOPES, Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.data.blocks import Geometry
from fl_ppseg.system.errors import InputError

SIZE = 4
Making = tuple[int, int, int, int]
"""Which sub-block, which of 8 turns, which of 6 orders of colours, inverted or not."""


def quarters(block: Bytes) -> list[Bytes]:
    """(3, M, M) -> its four sub-blocks, row by row."""
    half = block.shape[1] // 2
    return [block[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)]


def makings(block: Bytes) -> dict[bytes, Making]:
    """All 4 x 8 x 6 x 2 = 384 things that a sub-block of the ciphertext can be."""
    found = {}
    for source, quarter in enumerate(quarters(block)):
        for turn in range(8):
            turned = np.rot90(quarter if turn < 4 else quarter[:, :, ::-1], turn % 4, axes=(1, 2))
            for colour, order in enumerate(permutations(range(3))):
                coloured = turned[list(order)]
                for inverted, made in enumerate((coloured, 255 - coloured)):
                    found[made.tobytes()] = (source, turn, colour, inverted)
    assert len(found) == 384
    return found


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """(N, 4, 4): the making of each sub-block of each of 1500 equal blocks."""
    block = make_image(Geometry(3, SIZE, 1, 1), seed=5)
    known, grid = makings(block), (30, 50)
    secret = encrypt(tiled(block, *grid), KEY, "etc", block_size=SIZE, scope="per-block")
    rows = (strip for strip in np.split(secret, grid[0], axis=1))
    blocks = [ciphertext for row in rows for ciphertext in np.split(row, grid[1], axis=2)]
    return np.array([[known[q.tobytes()] for q in quarters(ciphertext)] for ciphertext in blocks])


def test_sub_blocks_are_scrambled_and_none_is_lost(drawn: np.ndarray) -> None:
    assert (np.sort(drawn[:, :, 0]) == np.arange(4)).all()
    assert_uniform(drawn[:, :, 0], 24)


def test_turns_colours_and_inversion_are_uniform_together(drawn: np.ndarray) -> None:
    assert_uniform(drawn[:, :, 1:].reshape(-1, 3), 8 * 6 * 2)


def test_sub_blocks_of_a_block_draw_independently(drawn: np.ndarray) -> None:
    assert_uniform(drawn[:, :2, 1], 8 * 8)
    assert_uniform(drawn[:, 2:, 2], 6 * 6)
    assert_uniform(drawn[:, :, 3], 2**4)


@pytest.mark.parametrize("size", [2, 4, 10, 16])
@pytest.mark.parametrize("scope", SCOPES)
def test_every_even_side_will_do(size: int, scope: Scope) -> None:
    image = make_image(Geometry(3, size, 1, 2))
    secret = encrypt(image, KEY, "etc", block_size=size, scope=scope)
    for plain, ciphertext in zip(
        np.split(image, 2, axis=2), np.split(secret, 2, axis=2), strict=True
    ):
        if size > 2:  # a sub-block of one pixel has no turns: they all look alike
            assert all(quarter.tobytes() in makings(plain) for quarter in quarters(ciphertext))
        assert (
            np.sort(abs(2.0 * plain - 255), None) == np.sort(abs(2.0 * ciphertext - 255), None)
        ).all()


@pytest.mark.parametrize("size", [1, 3, 15])
def test_odd_sides_are_refused(size: int) -> None:
    image = make_image(Geometry(3, size, 1, 2))
    with pytest.raises(
        InputError, match=f"cipher etc needs blocks with an even side, got {size}x{size} pixels"
    ) as caught:
        encrypt(image, KEY, "shuffle+etc", block_size=size, scope="common")
    assert "\n" not in str(caught.value)
