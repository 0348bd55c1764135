"""A model's scores as the owner of the images reads them: each pixel's in its place."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fl_ppseg.data.pixel_order import PixelOrder
from fl_ppseg.setr.model import SETR, Logits
from fl_ppseg.setr.pixel_head import in_place


class OwnerView(nn.Module):
    """(B, 3, H, W) ciphertexts -> `Logits` of their images' pixels, in place.

    Wraps a model with a pixel head, or its sliding windows. Its scores come in the order of the
    ciphertext; the owner undoes the order and puts the decoder's scores, which have none, beside
    them (`in_place`); in frames of several windows up to what resizing differs at their edges.
    """

    def __init__(self, frames: nn.Module, block_size: int, orders: Sequence[PixelOrder]) -> None:
        """Take the orders of the images of the batch that will be segmented.

        Args:
            frames: (B, 3, H, W) -> `Logits` with the decoder's own.
            block_size: Side of a block in pixels.
            orders: One per image.
        """
        super().__init__()
        self.frames, self.block_size, self.orders = frames, block_size, tuple(orders)
        self.train(frames.training)

    def forward(self, images: Tensor) -> Logits:
        """Segment ciphertexts, and undo their orders.

        Raises:
            ValueError: Not one order per image.
        """
        if len(images) != len(self.orders):
            raise ValueError(f"expected {len(self.orders)} images, got {len(images)}")
        found: Logits = self.frames(images)
        if found.decoder is None:
            return found
        moved = (
            order.restored(scores.cpu().numpy())
            for order, scores in zip(self.orders, found.main, strict=True)
        )
        restored = torch.stack([torch.from_numpy(each) for each in moved]).to(found.main.device)
        return Logits(in_place(restored, found.decoder, self.block_size), ())


def owner_view(frames: nn.Module, model: SETR, orders: Sequence[PixelOrder | None]) -> nn.Module:
    """`frames`, or what an owner sees of it where the pixels of its images have other places.

    Args:
        frames: The model, or sliding windows of it.
        model: The model itself.
        orders: One per image of a batch; None for all of them where pixels are in place.

    Raises:
        ValueError: Some are None.
    """
    known = [order for order in orders if order is not None]
    if not known:
        return frames
    if len(known) < len(orders):
        raise ValueError(f"expected {len(orders)} orders, got {len(known)}")
    return OwnerView(frames, model.patch_size, known)
