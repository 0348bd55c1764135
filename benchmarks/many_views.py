"""What several views of an image, lined up, show of it that one does not.

    python benchmarks/many_views.py [--images N] [--views K ...]

Of each block of a view the mean colour survives, as it does under a cipher that moves pixels or
values within blocks, whatever the key. The adversary knows where in the image each view lies (seed
and name of the image, or by trying), and colours are not distorted: more than it has. From the
blocks of all views it restores the image at the model's size by iterative back-projection (Irani
and Peleg 1991). `one` is the image itself in blocks, enlarged; `fixed` are views 0 to 3, the views
of a shard with the default num_views; `fresh` the views of so many rounds, of which one of four is
the image itself. SSIM and PSNR (dB) are means over images of a val city of the default world.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fl_ppseg.data import views
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Scene, open_dataset
from fl_ppseg.data.views import SCALE_RANGE, Window, fit, is_unaugmented, view_generator
from fl_ppseg.data.windows import CROP_TRIES, is_mixed
from fl_ppseg.leaks.scores import score_images
from fl_ppseg.scenes.tree import synthesize

SIZE: Final = (64, 128)
BLOCK: Final = 8
STEPS: Final = 40
FIXED: Final = range(4)

Field = npt.NDArray[np.float32]


class Lying(NamedTuple):
    """Where a view lies in its image."""

    window: Window
    is_flipped: bool


def lying(scene: Scene, labels: npt.NDArray[np.uint8], view: int, is_fresh: bool = False) -> Lying:
    """Repeats the draws of `fl_ppseg.data.views.views`."""
    if view == 0 or (is_fresh and is_unaugmented(0, scene.scene_id, view)):
        return Lying(Window(SIZE, (0, 0), SIZE), False)
    rng = view_generator(0, scene.scene_id, view)
    ratio = rng.uniform(*SCALE_RANGE)
    scaled = (max(1, round(SIZE[0] * ratio)), max(1, round(SIZE[1] * ratio)))
    for _ in range(CROP_TRIES):
        window = Window(scaled, views._draw_offset(scaled, SIZE, rng), SIZE)
        if is_mixed(np.asarray(views._cut_labels(Image.fromarray(labels), window))):
            break
    return Lying(window, bool(rng.random() < 0.5))


def seen(image: Field, at: Lying) -> Field:
    """(H, W) -> (h, w) means of the blocks of a view, NaN where one is not all in the image."""
    cut = views._resample(Image.fromarray(image), at.window, Image.Resampling.BILINEAR)
    canvas = np.full(SIZE, np.nan, np.float32)
    top, left = (max(-side, 0) for side in at.window.offset)
    canvas[top : top + cut.height, left : left + cut.width] = np.asarray(cut)
    canvas = canvas[:, ::-1] if at.is_flipped else canvas
    blocks = canvas.reshape(SIZE[0] // BLOCK, BLOCK, SIZE[1] // BLOCK, BLOCK)
    means: Field = blocks.mean(axis=(1, 3))
    return means


def spread(means: Field, at: Lying) -> Field:
    """(h, w) means of blocks -> (H, W) over the image, NaN where the view does not lie."""
    canvas = means.repeat(BLOCK, 0).repeat(BLOCK, 1)
    canvas = canvas[:, ::-1] if at.is_flipped else canvas
    (height, width), (top, left), _ = at.window
    rows = (np.arange(SIZE[0]) + 0.5) * height / SIZE[0] - top
    columns = (np.arange(SIZE[1]) + 0.5) * width / SIZE[1] - left
    found = np.full(SIZE, np.nan, np.float32)
    inside = (rows >= 0) & (rows < SIZE[0]), (columns >= 0) & (columns < SIZE[1])
    places = np.ix_(rows[inside[0]].astype(int), columns[inside[1]].astype(int))
    found[np.ix_(*inside)] = canvas[places]
    return found


def restored(image: Field, ways: Sequence[Lying]) -> Field:
    """(H, W) -> (H, W), from the blocks of some views alone."""
    given = [seen(image, at) for at in ways]
    guess = np.full(SIZE, np.float32(np.nanmean(np.concatenate([g.ravel() for g in given]))))
    for _ in range(STEPS):
        errors = np.stack(
            [spread(g - seen(guess, at), at) for g, at in zip(given, ways, strict=True)]
        )
        number = np.isfinite(errors).sum(axis=0)
        guess = guess + np.nansum(errors, axis=0) / np.maximum(number, 1)
    return guess.astype(np.float32)


def of_colours(image: npt.NDArray[np.uint8], ways: Sequence[Lying]) -> npt.NDArray[np.uint8]:
    """(3, H, W) uint8 -> (3, H, W) uint8."""
    channels = [restored(channel.astype(np.float32), ways) for channel in image]
    return np.clip(np.round(np.stack(channels)), 0, 255).astype(np.uint8)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--views", type=int, nargs="+", default=[1, 10, 30, 120])
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "scenes"
        synthesize(root, num_train=36, num_val=options.images, size=(128, 256), seed=0)
        dataset = open_dataset(root, load_class_table("cityscapes"), ("val",))
        scenes = [scene for city in dataset.split("val").values() for scene in city]
        plain = [(scene, *fit(*scene.load(), SIZE, "resize"), scene.load()[1]) for scene in scenes]
    settings = {"one": range(1), f"fixed, {len(FIXED)}": FIXED}
    settings |= {f"fresh, {number}": range(1, number + 1) for number in options.views}
    print(f"{'views':12} {'SSIM':>6} {'PSNR':>6}")
    truth = np.stack([image for _, image, _, _ in plain])
    for name, numbers in settings.items():
        guesses = [
            of_colours(image, [lying(scene, labels, n, numbers.start > 0) for n in numbers])
            for scene, image, _, labels in plain
        ]
        found = score_images(truth, np.stack(guesses), BLOCK)
        print(f"{name:12} {found.ssim:6.3f} {found.psnr:6.2f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
