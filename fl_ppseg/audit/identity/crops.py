"""Windows of whole blocks around a plate or a face in front of a procedural scene.

What survives a cipher survives block by block, so an attack on the blocks around a plate is the
attack on the frame, and large frames need no large network. The adversary is taken to know which
blocks these are: a car is found from far less than its plate. Where in its blocks a plate lies it
does not know; that is drawn pixel by pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
import numpy.typing as npt

from fl_ppseg.audit.identity import faces, plates
from fl_ppseg.scenes.cities import city_style
from fl_ppseg.scenes.render import render_scene

Bytes = npt.NDArray[np.uint8]
Draw = Callable[[int], tuple[Bytes, Bytes]]
"""Number of a crop -> its patch (h, w, 3) and the patch's cover (h, w)."""

NUM_SCENES: Final = 12
"""At most, behind the crops of one call."""
LEAST_SCENE: Final = (256, 512)
"""Pixels of the scenes behind; small frames are cut from these as well."""
SLACK: Final = 1.12
"""Room for a patch that is drawn larger and turned."""
NOISE: Final = 2.0
"""Standard deviation of the sensor's noise, grey levels."""


@dataclass(frozen=True, eq=False)
class Window:
    """Size of a crop for a patch of a size, and the side of a block."""

    size: tuple[int, int]
    block_size: int

    @classmethod
    def around(cls, height: float, width: float, block_size: int) -> "Window":
        """The least whole blocks that hold a patch wherever it begins in its first block."""
        rows, columns = (ceil((SLACK * side + block_size) / block_size) for side in (height, width))
        return cls((rows * block_size, columns * block_size), block_size)


def plate_window(height: float, block_size: int) -> Window:
    """The window of a plate whose characters are `height` pixels high."""
    turned = plates.HEIGHT + plates.WIDTH * np.sin(np.radians(2))
    return Window.around(height * turned, height * plates.WIDTH, block_size)


def face_window(height: float, block_size: int) -> Window:
    """The window of a face that is `height` pixels high."""
    return Window.around(height, height, block_size)


def plate_crops(
    truths: npt.NDArray[np.int64], height: float, block_size: int, whose: str, seed: int
) -> Bytes:
    """(n, NUM_CHARACTERS) truths -> (n, 3, H, W) uint8 crops.

    Args:
        truths: What stands on the plates.
        height: Of a character, in pixels.
        block_size: Side M of a block in pixels.
        whose: Name of the city behind: owners and attackers have different ones.
        seed: Draws everything else.
    """
    rng = np.random.default_rng([seed, 1])
    window = plate_window(height, block_size)
    return _crops(
        len(truths), window, lambda k: plates.draw_plate(truths[k], height, rng), whose, rng
    )


def face_crops(
    people: npt.NDArray[np.float64], height: float, block_size: int, whose: str, seed: int
) -> Bytes:
    """(n, NUM_TRAITS) people -> (n, 3, H, W) uint8 crops, one photograph each; as `plate_crops`."""
    rng = np.random.default_rng([seed, 2])
    window = face_window(height, block_size)
    return _crops(
        len(people), window, lambda k: faces.draw_face(people[k], height, rng), whose, rng
    )


def _crops(count: int, window: Window, draw: Draw, whose: str, rng: np.random.Generator) -> Bytes:
    scenes = _scenes(min(count, NUM_SCENES), whose, window.size, rng)
    crops = np.empty((count, 3, *window.size), np.uint8)
    for k in range(count):
        crop = _cut(scenes[rng.integers(len(scenes))], window.size, rng)
        patch, cover = draw(k)
        light = np.clip(crop.mean() / 110, 0.55, 1.1) * rng.uniform(0.85, 1.05)
        top, left = (
            int(rng.integers(min(window.block_size, free + 1)))
            for free in np.subtract(window.size, patch.shape[:2])
        )
        here = np.s_[top : top + patch.shape[0], left : left + patch.shape[1]]
        share = cover[..., None] / 255
        crop[here] += share * (patch * light - crop[here])
        crop += rng.normal(0, NOISE, crop.shape)
        crops[k] = crop.clip(0, 255).round().astype(np.uint8).transpose(2, 0, 1)
    return crops


def _scenes(
    count: int, whose: str, least: tuple[int, int], rng: np.random.Generator
) -> list[Bytes]:
    """Photographs (H, W, 3) of a city, larger than a crop."""
    rows = max(LEAST_SCENE[0], *(2 * side for side in least))
    style, seed = city_style(whose), int(rng.integers(2**31))
    return [render_scene(style, seed, k, (rows, 2 * rows))[0] for k in range(count)]


def _cut(scene: Bytes, size: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    top, left = (
        int(rng.integers(have - need + 1)) for have, need in zip(scene.shape[:2], size, strict=True)
    )
    return scene[top : top + size[0], left : left + size[1]].astype(np.float64)
