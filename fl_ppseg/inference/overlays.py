"""A segmentation laid over its image, in the colours of its classes."""

import numpy as np
from PIL import Image

from fl_ppseg.data.classes import ClassTable, load_class_table
from fl_ppseg.data.given_images import AnyImage, as_pixels
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError


def overlay(
    image: AnyImage,
    labels: Pixels,
    *,
    classes: ClassTable | str = "cityscapes",
    opacity: float = 0.5,
) -> Image.Image:
    """Lay the colours of classes over an image.

    Args:
        image: A path, a picture of Pillow's, or uint8 (h, w, 3) or (3, h, w).
        labels: (h, w) uint8 trainIds; where one is of no class the image stays.
        classes: The class table, e.g. `model.classes`, or the name of a built-in one.
        opacity: Of the colours: 0 shows the image alone, 1 the colours alone.

    Returns:
        A picture of Pillow's, RGB.

    Raises:
        InputError: The image cannot be read, labels are of another size, or opacity is not from 0
            to 1.

    >>> image = np.zeros((2, 2, 3), np.uint8)
    >>> picture = overlay(image, np.array([[0, 0], [11, 255]], np.uint8), opacity=1)
    >>> picture.getpixel((0, 0)), picture.getpixel((0, 1)), picture.getpixel((1, 1))
    ((128, 64, 128), (220, 20, 60), (0, 0, 0))
    """
    pixels = as_pixels(image)
    if labels.shape != pixels.shape[1:] or labels.dtype != np.uint8:
        raise InputError(
            f"expected labels of uint8 {pixels.shape[1:]} (height, width) as the image has, got "
            f"{labels.dtype} {labels.shape}"
        )
    if not 0 <= opacity <= 1:
        raise InputError(f"expected an opacity from 0 to 1, got {opacity}")
    table = load_class_table(classes) if isinstance(classes, str) else classes
    return Image.fromarray(coloured(pixels, labels, table, opacity))


def coloured(pixels: Pixels, labels: Pixels, classes: ClassTable, opacity: float) -> Pixels:
    """(3, h, w) RGB and (h, w) trainIds, both uint8 -> (h, w, 3) uint8, as `overlay`."""
    image = pixels.transpose(1, 2, 0)  # CHW -> HWC
    weight = np.float32(opacity)
    mixed = np.rint(image * (1 - weight) + classes.colourise(labels) * weight).astype(np.uint8)
    is_class = labels[..., None] < classes.num_classes
    shown: Pixels = np.where(is_class, mixed, image)
    return shown
