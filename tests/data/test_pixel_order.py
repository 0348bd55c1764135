"""The order of a ciphertext's pixels: what it moves, what it undoes, what it hides."""

import copy
import pickle

import numpy as np
import pytest

from fl_ppseg.data.pixel_order import PixelOrder, cell_of, cells_size, scaled_to_cells
from fl_ppseg.system.errors import InputError

RNG = np.random.default_rng(0)
ORDER = PixelOrder(np.stack([RNG.permutation(16) for _ in range(6)]), 4)
"""Of 8 x 12 pixels in blocks of 4."""


def test_a_block_is_moved_as_its_row_says() -> None:
    values = np.arange(96).reshape(8, 12)
    rows = np.stack([np.roll(np.arange(16), number) for number in range(6)])
    moved = PixelOrder(rows, 4).permuted(values)
    for number in range(6):
        top, left = number // 3 * 4, number % 3 * 4
        block = values[top : top + 4, left : left + 4].ravel()
        found = moved[top : top + 4, left : left + 4].ravel()
        np.testing.assert_array_equal(found, block[rows[number]])


@pytest.mark.parametrize("lead", [(), (3,), (2, 5)])
def test_restored_undoes_permuted(lead: tuple[int, ...]) -> None:
    values = RNG.normal(size=(*lead, 8, 12))
    assert not np.array_equal(ORDER.permuted(values), values)
    np.testing.assert_array_equal(ORDER.restored(ORDER.permuted(values)), values)


def test_one_row_serves_all_blocks() -> None:
    row = RNG.permutation(16)
    values = RNG.normal(size=(8, 12))
    alike = PixelOrder(np.stack([row] * 6), 4).permuted(values)
    np.testing.assert_array_equal(PixelOrder(row[None], 4).permuted(values), alike)


@pytest.mark.parametrize("cell", [1, 2, 3])
def test_labels_of_a_pixel_stay_together_and_keep_no_order(cell: int) -> None:
    labels = RNG.integers(0, 19, (8 * cell, 12 * cell)).astype(np.uint8)

    def sets(found: np.ndarray) -> np.ndarray:
        grid = found.reshape(8, cell, 12, cell).transpose(0, 2, 1, 3)
        return np.sort(grid.reshape(8, 12, -1), axis=-1)

    moved = ORDER.permuted_cells(labels, cell)
    pixels = moved.reshape(8, cell, 12, cell).transpose(0, 2, 1, 3).reshape(8, 12, -1)
    assert (np.diff(pixels.astype(int), axis=-1) >= 0).all()
    np.testing.assert_array_equal(sets(ORDER.restored_cells(moved, cell)), sets(labels))
    expected = np.moveaxis(ORDER.permuted(np.moveaxis(sets(labels), -1, 0)), 0, -1)
    np.testing.assert_array_equal(pixels, expected)


def test_all_pixels_get_as_many_labels() -> None:
    """Where a label map is no multiple of the image, their number would tell places."""
    labels = RNG.integers(0, 19, (50, 90)).astype(np.uint8)
    assert cell_of((50, 90), (16, 32)) == 3
    assert scaled_to_cells(labels, (16, 32)).shape == cells_size((50, 90), (16, 32)) == (48, 96)
    assert cell_of((5, 9), (16, 32)) == 1
    same = RNG.integers(0, 19, (32, 64)).astype(np.uint8)
    np.testing.assert_array_equal(scaled_to_cells(same, (16, 32)), same)


@pytest.mark.parametrize("shape", [(8, 11), (8, 8), (0, 12), (16, 12)])
def test_values_of_another_image_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"got {shape[0]} x {shape[1]}"):
        ORDER.permuted(np.zeros(shape))


def test_an_order_is_neither_printed_nor_copied() -> None:
    assert repr(ORDER) == "PixelOrder(blocks of 4)"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="key material"):
            attempt(ORDER)
