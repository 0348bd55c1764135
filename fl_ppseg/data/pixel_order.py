"""Where a cipher put the pixels of each block: what an owner needs to move labels and scores along.

A cipher that keeps pixels whole permutes them within their block. Label maps permuted alike still
say of each pixel of the ciphertext what it shows, and no longer where in its block that is. The
order is key material: it stays with the owner of the key.
"""

from typing import NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.data.nearest import nearest
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError

Value = TypeVar("Value", bound=np.generic)


class PixelOrder:
    """The places of the pixels of a ciphertext. Neither printed, pickled nor copied."""

    def __init__(self, permutation: NDArray[np.integer], block_size: int) -> None:
        """Take the permutation of each block.

        Args:
            permutation: (1, P) for all blocks or (N, P) for each by ascending index, P the pixels
                of a block by rows: pixel p of the ciphertext was at place permutation[p].
            block_size: Side of a block in pixels.
        """
        self._permutation = np.asarray(permutation, np.int64)
        self._block_size = block_size

    def permuted(self, values: NDArray[Value]) -> NDArray[Value]:
        """(..., H, W) values of an image's pixels -> those of its ciphertext's pixels.

        Raises:
            InputError: H or W is no multiple of the block, or the order is of another grid.
        """
        return self._moved(values, self._permutation)

    def restored(self, values: NDArray[Value]) -> NDArray[Value]:
        """(..., H, W) values of a ciphertext's pixels -> those of its image's: undoes `permuted`.

        Raises:
            InputError: As `permuted`.
        """
        return self._moved(values, self._permutation.argsort(axis=-1))

    def permuted_cells(self, labels: Pixels, cell: int) -> Pixels:
        """(kH, kW) labels, k x k of them a pixel -> those of the ciphertext's pixels, sorted.

        Labels of one pixel keep no order among themselves: it would tell the way an outline goes.

        Args:
            labels: trainIds.
            cell: k.

        Raises:
            InputError: As `permuted`.
        """
        return _placed(np.sort(self.permuted(_stacked(labels, cell)), axis=0), cell)

    def restored_cells(self, labels: Pixels, cell: int) -> Pixels:
        """Undo `permuted_cells`, but for the order of the labels of one pixel.

        Raises:
            InputError: As `permuted`.
        """
        return _placed(self.restored(_stacked(labels, cell)), cell)

    def __repr__(self) -> str:
        """Nothing of the order."""
        return f"PixelOrder(blocks of {self._block_size})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse pickle, copy and deepcopy alike."""
        raise TypeError("a PixelOrder cannot be pickled or copied: it is key material")

    def _moved(self, values: NDArray[Value], index: NDArray[np.int64]) -> NDArray[Value]:
        size = self._block_size
        *lead, height, width = values.shape
        rows, columns = height // size, width // size
        if (
            height % size
            or width % size
            or len(index) not in (1, rows * columns)
            or not rows * columns
        ):
            raise InputError(
                f"expected values of whole blocks of {size} pixels of the encrypted image, got "
                f"{height} x {width} (height x width)"
            )
        # ... gh y gw x -> ... gh gw y x -> ... N P
        parted = values.reshape(*lead, rows, size, columns, size).swapaxes(-3, -2)
        blocks = parted.reshape(*lead, rows * columns, size * size)
        moved = np.take_along_axis(blocks, index.reshape((1,) * len(lead) + index.shape), axis=-1)
        back = moved.reshape(*lead, rows, columns, size, size).swapaxes(-3, -2)
        return back.reshape(values.shape)


def _stacked(labels: Pixels, cell: int) -> Pixels:
    """(kH, kW) -> (k*k, H, W)."""
    height, width = labels.shape[0] // cell, labels.shape[1] // cell
    cells = labels.reshape(height, cell, width, cell).transpose(1, 3, 0, 2)
    return cells.reshape(cell * cell, height, width)


def _placed(cells: Pixels, cell: int) -> Pixels:
    """(k*k, H, W) -> (kH, kW)."""
    height, width = cells.shape[1:]
    grid = cells.reshape(cell, cell, height, width).transpose(2, 0, 3, 1)
    return grid.reshape(height * cell, width * cell)


def cell_of(size: tuple[int, int], image_size: tuple[int, int]) -> int:
    """Labels along the side of a pixel, k, where label maps of `size` are scored under encryption.

    Where a pixel has k x k labels, all pixels must have as many, or their number would tell their
    places: the label map is brought to k times the size of the image.

    >>> cell_of((128, 256), (64, 128)), cell_of((720, 960), (128, 256)), cell_of((50, 80), (64, 96))
    (2, 4, 1)
    """
    return max(1, min(round(own / side) for own, side in zip(size, image_size, strict=True)))


def cells_size(size: tuple[int, int], image_size: tuple[int, int]) -> tuple[int, int]:
    """(kH, kW) of `scaled_to_cells` for a label map of some size, not read yet."""
    cell = cell_of(size, image_size)
    return cell * image_size[0], cell * image_size[1]


def scaled_to_cells(labels: Pixels, image_size: tuple[int, int]) -> Pixels:
    """(h, w) trainIds -> (kH, kW), nearest, k of `cell_of`."""
    size = (labels.shape[0], labels.shape[1])
    return nearest(labels, cells_size(size, image_size))
