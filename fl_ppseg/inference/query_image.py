"""An image as it is sent to a model, and how the answer gets back to the image's own size."""

from dataclasses import dataclass
from io import BytesIO
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fl_ppseg.data.nearest import nearest
from fl_ppseg.data.pixel_order import PixelOrder
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError

Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True, eq=False, repr=False)
class QueryImage:
    """A query: an image under a key that it does not hold, as a model's spec wants it.

    What is sent is `pixels`, or `to_png()`; the rest stays with who asks. Printing it shows sizes.
    """

    pixels: Pixels
    """(3, H, W) uint8: the ciphertext, read-only."""
    size: tuple[int, int]
    """(height, width) of the image, in pixels."""
    place: tuple[int, int] | None
    """(top, left) of the image in what was padded around it; None where the image was scaled."""
    order: PixelOrder | None = None
    """The places of the ciphertext's pixels, where answers come in their order; None: in place.
    Key material: it is not sent."""

    def __post_init__(self) -> None:
        """Take a copy that nobody can change."""
        own = np.array(self.pixels, dtype=np.uint8, order="C")
        own.setflags(write=False)
        object.__setattr__(self, "pixels", own)

    @property
    def answer_size(self) -> tuple[int, int]:
        """(height, width) that the labels of an answer must have, to be ``restored``."""
        height, width = self.pixels.shape[1:]
        return self.size if self.place is None and self.order is None else (height, width)

    def restored(self, answer: NDArray[Value]) -> NDArray[Value]:
        """Values of ``answer_size`` -> (height, width) values of the image itself, in place.

        Raises:
            InputError: They are of another size.
        """
        if answer.shape != self.answer_size:
            raise InputError(
                f"expected an answer of {self.answer_size} (height, width), got {answer.shape}; "
                "ask for that size"
            )
        if self.order is not None:
            answer = self.order.restored(answer)
        return self.placed(answer)

    def placed(self, answer: NDArray[Value]) -> NDArray[Value]:
        """Values of an answer whose pixels are in place -> those of the image itself."""
        if self.place is None:
            return answer if answer.shape == self.size else nearest(answer, self.size)
        (top, left), (height, width) = self.place, self.size
        return answer[top : top + height, left : left + width]

    def to_png(self) -> bytes:
        """The ciphertext as a PNG of RGB, which says nothing else."""
        file = BytesIO()
        Image.fromarray(self.pixels.transpose(1, 2, 0)).save(file, "PNG", compress_level=1)
        return file.getvalue()

    def __repr__(self) -> str:
        """Sizes alone."""
        sizes = (f"{height} x {width}" for height, width in (self.pixels.shape[1:], self.size))
        return "QueryImage({} pixels, of an image of {})".format(*sizes)
