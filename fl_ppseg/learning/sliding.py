"""Segmentation of a whole frame by a model for smaller images: sliding windows.

As mmsegmentation's `slide` mode: windows of the model's size at a stride of two thirds of it, the
last ones flush with the border, logits averaged where they overlap. Windows begin at multiples of
the block, so that they can be cut from encrypted frames. Logits are averaged at the resolution of
the model's head and brought to that of the frame afterwards, once.
"""

import torch
from torch import Tensor, nn

from fl_ppseg.setr.model import SETR, Logits

STRIDE = (2, 3)
"""Stride as a share of a window (mmsegmentation's SETR on Cityscapes: 512 of 768)."""


class SlidingWindows(nn.Module):
    """(B, 3, H, W) -> `Logits` of frames of any whole number of blocks, no smaller than a window.

    A frame of the model's own size is one window: its logits are the model's own, to the bit.
    """

    def __init__(self, model: SETR) -> None:
        """Take the window from the model: its grid of patches."""
        super().__init__()
        self.model = model
        self.block = model.patch_size
        self.window = (model.grid[0] * self.block, model.grid[1] * self.block)
        self.train(model.training)

    def forward(self, images: Tensor) -> Logits:
        """Segment all windows of the frames, and average.

        Raises:
            ValueError: The frames are smaller than a window, or not a whole number of blocks.
        """
        rows, columns = (
            offsets(side, window, self.block)
            for side, window in zip(images.shape[-2:], self.window, strict=True)
        )
        size = (images.shape[-2], images.shape[-1])
        parts = {(top, left): self._part(images, top, left) for top in rows for left in columns}
        main = self._averaged({place: part.main for place, part in parts.items()}, size)
        own = {place: part.decoder for place, part in parts.items() if part.decoder is not None}
        return Logits(main, (), self._averaged(own, size) if own else None)

    def _part(self, images: Tensor, top: int, left: int) -> Logits:
        height, width = self.window
        found: Logits = self.model(images[..., top : top + height, left : left + width])
        return found

    def _averaged(self, parts: dict[tuple[int, int], Tensor], size: tuple[int, int]) -> Tensor:
        """Parts (B, C, h, w) by their place in the frame -> (B, C, h', w')."""
        batch, num_classes, height, width = next(iter(parts.values())).shape
        scale = height / self.window[0], width / self.window[1]  # of the head, the same in all
        rows, columns = round(size[0] * scale[0]), round(size[1] * scale[1])
        some = next(iter(parts.values()))
        total = some.new_zeros(batch, num_classes, rows, columns)
        number = some.new_zeros(rows, columns)
        for (top, left), part in parts.items():
            place = (
                slice(round(top * scale[0]), round(top * scale[0]) + height),
                slice(round(left * scale[1]), round(left * scale[1]) + width),
            )
            total[..., place[0], place[1]] += part
            number[place] += 1
        return torch.div(total, number)


def offsets(side: int, window: int, block: int) -> list[int]:
    """Where windows begin along one side of a frame, in pixels.

    Args:
        side: Of the frame.
        window: Of the window.
        block: Of a block; all three in pixels.

    Raises:
        ValueError: The side is shorter than the window, or not a whole number of blocks.

    >>> offsets(1024, 768, 16), offsets(768, 768, 16), offsets(800, 96, 8)[-3:]
    ([0, 256], [0], [576, 640, 704])
    """
    if side < window or side % block:
        raise ValueError(f"a frame's side of {side} pixels, window {window}, block {block}")
    stride = max(block, window * STRIDE[0] // STRIDE[1] // block * block)
    number = -(-(side - window) // stride) + 1
    return [min(index * stride, side - window) for index in range(number)]
