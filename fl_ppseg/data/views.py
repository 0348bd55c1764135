"""Views: one image fitted to the model's size, and its randomly augmented copies.

Everything is decided by (seed, scene, number of the view), so that views can be made in any order
and in any process. Augmentation is that of SETR in mmsegmentation: random scale, random crop that
no class dominates, flip, photometric distortion.
"""

import hashlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from fl_ppseg.data.classes import IGNORE_INDEX
from fl_ppseg.data.distortion import distort, draw_distortion
from fl_ppseg.data.windows import CROP_TRIES, is_mixed
from fl_ppseg.system.arrays import Pixels

View = tuple[Pixels, Pixels]
"""(3, H, W) uint8 RGB and (H, W) uint8 trainIds."""
Size = tuple[int, int]
"""(height, width) in pixels."""
SizePolicy = Literal["resize", "crop"]
"""How an image of another size becomes one of the model's: scaled as a whole, or cut at scale 1."""

GREY = 127
"""Value of padded pixels: next to 0 in the model's input."""
SCALE_RANGE = (0.5, 2.0)
UNAUGMENTED = 64
"""Of 256 fresh views so many are the image itself, on average: one of four, as of fixed views."""


class Window(NamedTuple):
    """A part of an image at some scale."""

    scaled: Size
    """Size of the whole image at that scale."""
    offset: Size
    """Where the part starts in it; below 0 where the part sticks out."""
    size: Size
    """Size of the part."""


def fit(image: Pixels, labels: Pixels, image_size: Size, policy: SizePolicy) -> View:
    """(3, H, W), (H, W) uint8 -> (3, h, w), (h, w) uint8 with (h, w) = ``image_size``.

    Args:
        image: RGB of any size.
        labels: trainIds of the same size.
        image_size: (height, width) of the views.
        policy: ``resize`` scales both axes to fit (bilinear with antialias; labels: nearest);
            ``crop`` cuts the centre, padded where the image is smaller (grey; labels: 255).
    """
    window = _middle(labels.shape, image_size, policy)
    return _cut_whole(image, window), np.array(_cut_labels(Image.fromarray(labels), window))


def scaled_labels(labels: Pixels, image_size: Size) -> Pixels:
    """(H, W) uint8 trainIds -> (h, w): the label map of :func:`fit` with ``resize``, by itself."""
    window = _middle(labels.shape, image_size, "resize")
    return np.array(_cut_labels(Image.fromarray(labels), window))


def fit_for_scoring(
    image: Pixels, labels: Pixels, image_size: Size, policy: SizePolicy, block_size: int
) -> View:
    """(3, H, W), (H, W) uint8 -> the whole image as it is scored, and the labels to score it by.

    With ``resize`` the image is fitted and the labels are the label map at its own size, to which
    predictions are scaled; with ``crop`` both are padded to a whole frame (grey; labels: 255), over
    which windows of the model's size slide.

    Args:
        image: RGB of any size.
        labels: trainIds of the same size.
        image_size: (height, width) of the model's input.
        policy: As for :func:`fit`.
        block_size: Side of a block in pixels.
    """
    if policy == "crop":
        size = (labels.shape[0], labels.shape[1])
        return fit(image, labels, _frame(size, image_size, block_size), policy)
    return whole_image(image, image_size, policy, block_size)[0], labels


def whole_image(
    image: Pixels, image_size: Size, policy: SizePolicy, block_size: int
) -> tuple[Pixels, Size]:
    """(3, h, w) uint8 -> (3, H, W): the image of :func:`fit_for_scoring`, which has no labels.

    Args:
        image: RGB of any size.
        image_size: (height, width) of the model's input.
        policy: As for :func:`fit`.
        block_size: Side of a block in pixels.

    Returns:
        The image, and (top, left) of the given one in it, in pixels: (0, 0) where it is scaled.
    """
    size = (image.shape[1], image.shape[2])
    target = _frame(size, image_size, block_size) if policy == "crop" else image_size
    window = _middle(size, target, policy)
    return _cut_whole(image, window), (-window.offset[0], -window.offset[1])


def scored_size(size: Size, image_size: Size, policy: SizePolicy, block_size: int) -> Size:
    """Size of the labels of :func:`fit_for_scoring` for an image of some size, not read yet."""
    return _frame(size, image_size, block_size) if policy == "crop" else size


def augment(
    image: Pixels,
    labels: Pixels,
    image_size: Size,
    rng: np.random.Generator,
    policy: SizePolicy = "resize",
) -> View:
    """(3, H, W), (H, W) uint8 -> one random view, (3, h, w), (h, w) uint8.

    The random scale is relative to what ``policy`` makes of the image: to ``image_size`` for
    ``resize``, to the image's own size for ``crop``. Padding falls on a random side.
    """
    picture, label_map = _to_picture(image), Image.fromarray(labels)
    base = _base_size(labels.shape, image_size, policy)
    ratio = rng.uniform(*SCALE_RANGE)
    scaled = (max(1, round(base[0] * ratio)), max(1, round(base[1] * ratio)))
    for _ in range(CROP_TRIES):
        window = Window(scaled, _draw_offset(scaled, image_size, rng), image_size)
        cut = _cut_labels(label_map, window)
        if is_mixed(np.asarray(cut)):
            break
    flip = rng.random() < 0.5
    distorted = distort(_cut_image(picture, window), draw_distortion(rng))
    view = _to_view(_pad(distorted, window, GREY), cut)
    return (view[0][..., ::-1].copy(), view[1][..., ::-1].copy()) if flip else view


def views(
    image: Pixels,
    labels: Pixels,
    image_size: Size,
    policy: SizePolicy,
    num_views: int,
    seed: int,
    scene_id: str,
    first: int = 0,
) -> Iterator[View]:
    """Yields ``num_views`` views of a scene: view 0 is the image itself, fitted, others are random.

    Of fresh views, which begin later, one of four is the image itself (`is_unaugmented`): scores
    are measured on such images, and training on augmented ones alone lowers them.

    Args:
        image: (3, H, W) uint8 RGB.
        labels: (H, W) uint8 trainIds.
        image_size: (height, width) of each view.
        policy: As for :func:`fit`.
        num_views: How many views.
        seed: Of the run.
        scene_id: Names the scene within its data set.
        first: Number of the first of them.
    """
    for view in range(first, first + num_views):
        if view == 0 or (first and is_unaugmented(seed, scene_id, view)):
            yield fit(image, labels, image_size, policy)
        else:
            yield augment(image, labels, image_size, view_generator(seed, scene_id, view), policy)


def is_unaugmented(seed: int, scene_id: str, view: int) -> bool:
    """Whether a fresh view is the image itself, fitted: one of four, drawn by seed and image."""
    return _digest(seed, scene_id, view)[16] < UNAUGMENTED


def view_generator(seed: int, scene_id: str, view: int) -> np.random.Generator:
    """The random generator of one view of one scene (Philox, its 128-bit key from SHA-256)."""
    key = np.frombuffer(_digest(seed, scene_id, view)[:16], dtype="<u8")
    return np.random.Generator(np.random.Philox(key=key))


def _digest(seed: int, scene_id: str, view: int) -> bytes:
    return hashlib.sha256(f"fl_ppseg view v1\n{seed}\n{view}\n{scene_id}".encode()).digest()


def _base_size(size: tuple[int, ...], image_size: Size, policy: SizePolicy) -> Size:
    """Size of the whole image at scale 1 of the policy."""
    sizes: dict[SizePolicy, Size] = {"resize": image_size, "crop": (size[0], size[1])}
    return sizes[policy]


def _frame(size: Size, image_size: Size, block_size: int) -> Size:
    """The smallest whole number of blocks that holds an image and no less than one window."""
    height, width = (-(-side // block_size) * block_size for side in size)
    return max(height, image_size[0]), max(width, image_size[1])


def _middle(size: tuple[int, ...], image_size: Size, policy: SizePolicy) -> Window:
    """The window of an image that is fitted."""
    scaled = _base_size(size, image_size, policy)
    offset = ((scaled[0] - image_size[0]) // 2, (scaled[1] - image_size[1]) // 2)
    return Window(scaled, offset, image_size)


def _draw_offset(scaled: Size, image_size: Size, rng: np.random.Generator) -> Size:
    """Where a window starts in the scaled image; below 0 where the image is smaller."""
    spare_rows, spare_columns = scaled[0] - image_size[0], scaled[1] - image_size[1]
    top = rng.integers(min(spare_rows, 0), max(spare_rows, 0) + 1)
    left = rng.integers(min(spare_columns, 0), max(spare_columns, 0) + 1)
    return int(top), int(left)


def _cut_image(picture: Image.Image, window: Window) -> Image.Image:
    """The visible part of a window, not padded."""
    return _resample(picture, window, Image.Resampling.BILINEAR)


def _cut_whole(image: Pixels, window: Window) -> Pixels:
    """(3, h, w) -> (3, H, W): a window of an image, grey where it sticks out."""
    return _to_pixels(_pad(_cut_image(_to_picture(image), window), window, GREY))


def _cut_labels(label_map: Image.Image, window: Window) -> Image.Image:
    """A window of a label map, 255 where it sticks out."""
    return _pad(_resample(label_map, window, Image.Resampling.NEAREST), window, IGNORE_INDEX)


def _resample(picture: Image.Image, window: Window, resampling: Image.Resampling) -> Image.Image:
    """Only what is visible in the window, straight from the source: no scaled image is made."""
    (height, width), (top, left), size = window
    rows = max(top, 0), min(top + size[0], height)
    columns = max(left, 0), min(left + size[1], width)
    per_row, per_column = picture.height / height, picture.width / width
    box = (
        columns[0] * per_column,
        rows[0] * per_row,
        min(columns[1] * per_column, picture.width),
        min(rows[1] * per_row, picture.height),
    )
    return picture.resize((columns[1] - columns[0], rows[1] - rows[0]), resampling, box=box)


def _pad(visible: Image.Image, window: Window, value: int) -> Image.Image:
    """Puts the visible part of a window in its place on a canvas of one value."""
    height, width = window.size
    if visible.size == (width, height):
        return visible
    canvas = Image.new(visible.mode, (width, height), (value,) * len(visible.getbands()))
    canvas.paste(visible, (max(-window.offset[1], 0), max(-window.offset[0], 0)))
    return canvas


def _to_picture(image: Pixels) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))  # CHW -> HWC


def _to_pixels(picture: Image.Image) -> Pixels:
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))  # HWC -> CHW


def _to_view(picture: Image.Image, label_map: Image.Image) -> View:
    return _to_pixels(picture), np.array(label_map)
