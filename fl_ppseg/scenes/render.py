"""From a city's style and a scene's number to its photograph and label map."""

import random

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.scenes.canvas import draw_items, nearness
from fl_ppseg.scenes.cities import CityStyle
from fl_ppseg.scenes.finish import finish
from fl_ppseg.scenes.ground import paint_ground
from fl_ppseg.scenes.labels import Label
from fl_ppseg.scenes.plan import Plan, draw_plan
from fl_ppseg.scenes.sky import paint_sky

Bytes = NDArray[np.uint8]


def render_scene(
    style: CityStyle, seed: int, index: int, size: tuple[int, int]
) -> tuple[Bytes, Bytes]:
    """Draw scene number `index` of a city.

    The composition depends on (seed, city, index) only, not on the size.

    Args:
        style: the city, from `city_style`.
        seed: of the data set.
        index: of the scene in its city, from 0; each third index brings the same rare classes.
        size: (H, W) pixels; meant for H : W near 1 : 2.

    Returns:
        Photograph (H, W, 3) uint8 RGB; Cityscapes labelIds (H, W) uint8.
    """
    name = f"fl_ppseg scene 1/{seed}/{style.name}/{index}"
    draw = random.Random(name)
    plan = draw_plan(draw, style, index, size)
    behind = _backcloth(plan, style, draw)
    picture, labels = draw_items(*behind, plan.items, plan.camera, plan.light)
    generator = np.random.Generator(np.random.SFC64(draw.getrandbits(128)))
    photo = finish(picture, labels, style, plan.light, generator)
    return _with_hood(photo, labels, style)


def _backcloth(plan: Plan, style: CityStyle, draw: random.Random) -> tuple[Bytes, Bytes]:
    """Sky and ground: (H, W, 4) colour and nearness, (H, W) labelIds."""
    size = plan.camera.size
    origin = draw.uniform(0, 100), draw.uniform(0, 100)
    drift = draw.random(), draw.random()
    first, colours, ground, z = paint_ground(
        plan.camera, plan.street, style, plan.light, plan.skyline, origin
    )
    picture = np.zeros((*size, 4), np.uint8)
    labels = np.full(size, int(Label.SKY), np.uint8)
    picture[:first, :, :3] = np.clip(paint_sky(size, first, plan.light, drift), 0, 255)
    picture[first:, :, :3] = np.clip(colours, 0, 255)
    picture[first:, :, 3] = nearness(z)
    labels[first:] = ground
    return picture, labels


def _with_hood(photo: Bytes, labels: Bytes, style: CityStyle) -> tuple[Bytes, Bytes]:
    """The bonnet of the camera car along the bottom, where the city's camera sees it."""
    rows, columns = labels.shape
    x = np.linspace(-1, 1, columns, dtype=np.float32)
    y = np.arange(rows, dtype=np.float32)[:, None] + 0.5
    top = rows * (1 - style.hood * (1 - 0.45 * x * x))
    inside = y > top
    gloss = np.clip(70 - 38 * (y - top) / max(rows * style.hood, 1), 24, 70)
    photo = np.where(inside[..., None], gloss[..., None].astype(np.uint8), photo)
    return photo, np.where(inside, np.uint8(Label.EGO_VEHICLE), labels)
