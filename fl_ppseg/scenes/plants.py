"""Trees and bushes: crowns of ragged patches, lit from above."""

import random
from functools import cache
from math import cos, pi, sin

import numpy as np

from fl_ppseg.scenes.labels import Label
from fl_ppseg.scenes.mesh import Floats, Item, Mesh, Sketch, rectangle
from fl_ppseg.scenes.worlds import RGB

TRUNK, DEEP, LEAF, BRIGHT = range(4)
NUM_TREES = 10
DETAIL = 55.0
"""Distance in metres beyond which crowns have few tufts."""


def _ragged(draw: random.Random, x: float, y: float, width: float, height: float) -> Floats:
    """An outline of leaves around (x, y): (16, 2)."""
    points = []
    for k in range(16):
        angle, reach = 2 * pi * k / 16, draw.uniform(0.72, 1.08)
        points.append((x + width * reach * cos(angle), y + height * reach * sin(angle)))
    return np.asarray(points, np.float32)


def _crown(
    sketch: Sketch,
    draw: random.Random,
    y: float,
    width: float,
    height: float,
    tufts: tuple[int, int],
) -> None:
    """Dark inside first, then clusters of leaves, then bright tufts at the top."""
    sketch.sheet(_ragged(draw, 0, y, width, height), DEEP, Label.VEGETATION)
    for role, number, size, rise in ((LEAF, tufts[0], 0.52, 0.1), (BRIGHT, tufts[1], 0.26, 0.3)):
        for _ in range(number):
            x = draw.uniform(-0.62, 0.62) * width
            up = y + (draw.uniform(-0.5, 0.5) + rise) * height
            tuft = _ragged(draw, x, up, size * width, size * height * 0.8)
            sketch.sheet(tuft, role, Label.VEGETATION, (0.0, 0.8, -0.6))


@cache
def tree(kind: int, detailed: bool = True) -> Mesh:
    """A tree of 8 m; kinds 0 to NUM_TREES - 1."""
    draw = random.Random(f"fl_ppseg tree 1/{kind}")
    sketch = Sketch()
    slim = kind % 3 == 0
    sketch.sheet(rectangle(0, 0, 0.3, 4.0), TRUNK, Label.VEGETATION)
    for side in (-1, 1):
        branch = [(0, 2.2), (0.12, 2.2), (side * 1.3, 4.2), (side * 1.4, 4.2)]
        sketch.sheet(branch, TRUNK, Label.VEGETATION)
    tufts = (5, 6) if detailed else (2, 1)
    _crown(sketch, draw, 5.3, 1.6 if slim else 2.7, 2.9 if slim else 2.5, tufts)
    return sketch.build()


@cache
def bush(kind: int) -> Mesh:
    """A bush 2.4 m wide and 1.5 m high."""
    draw = random.Random(f"fl_ppseg bush 1/{kind}")
    sketch = Sketch()
    _crown(sketch, draw, 0.6, 1.2, 0.85, (4, 3))
    return sketch.build()


def _palette(draw: random.Random, leaf: RGB) -> Floats:
    """Colours of the roles TRUNK ... BRIGHT around the city's leaf colour."""
    hue = np.asarray(leaf, np.float32) * [draw.uniform(0.85, 1.2) for _ in range(3)]
    trunk = np.asarray((84, 70, 58), np.float32) * draw.uniform(0.7, 1.2)
    return np.asarray((trunk, 0.62 * hue, hue, 1.25 * hue + 6), np.float32)


def draw_tree(draw: random.Random, x: float, z: float, leaf: RGB, size: float = 1.0) -> list[Item]:
    """A tree of `size` x 6 to 10 m."""
    height = size * draw.uniform(0.75, 1.25)
    width = height * draw.uniform(0.85, 1.2) * draw.choice((-1, 1))
    mesh = tree(draw.randrange(NUM_TREES), z < DETAIL)
    return [Item(mesh, _palette(draw, leaf), x, z, 0.0, (width, height, 1.0))]


def draw_bush(draw: random.Random, x: float, z: float, leaf: RGB) -> list[Item]:
    """A bush of 0.8 to 1.8 m."""
    size = draw.uniform(0.6, 1.25)
    scale = (size * draw.uniform(0.9, 1.5), size, 1.0)
    return [Item(bush(draw.randrange(6)), _palette(draw, leaf), x, z, 0.0, scale)]
