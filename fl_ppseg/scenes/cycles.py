"""Bicycles and motorcycles as flat figures that face the camera: x across, y up, in metres."""

from functools import cache

import numpy as np

from fl_ppseg.scenes.labels import Label
from fl_ppseg.scenes.mesh import UNPAINTED, Mesh, Sketch, disc, rectangle, stroke

FRAME, TYRE, LAMP = range(6, 9)
"""Rows of the palette of `figures`, whose first six are the rider's."""

TANK = ((-0.45, 0.35), (0.3, 0.28), (0.5, 0.6), (0.35, 0.95), (0.05, 0.78), (-0.7, 0.8))
ENGINE = ((-0.25, 0.22), (0.25, 0.22), (0.3, 0.5), (-0.3, 0.5))
BACK = ((-0.2, 0.4), (0.2, 0.4), (0.28, 0.75), (0.16, 0.95), (-0.16, 0.95), (-0.28, 0.75))
"""Outlines of a motorcycle's body from the side and from behind."""


@cache
def cycle(side: bool, motor: bool) -> Mesh:
    """A machine from the side or from behind, without its rider."""
    sketch = Sketch()
    label = Label.MOTORCYCLE if motor else Label.BICYCLE
    view = _from_the_side if side else _from_behind
    view(sketch, motor, label)
    return sketch.build()


def _from_behind(sketch: Sketch, motor: bool, label: Label) -> None:
    """One tyre, handlebars, and a motorcycle's tail with its lamp."""
    width, height = (0.18, 0.64) if motor else (0.09, 0.68)
    sketch.sheet(rectangle(0, 0, width, height), TYRE, label)
    if motor:
        sketch.sheet(BACK, FRAME, label)
        sketch.sheet(rectangle(0, 0.66, 0.2, 0.12), LAMP)
    sketch.sheet(stroke(-0.34, 1.02, 0.34, 1.02, 0.06), TYRE, label)
    sketch.sheet(rectangle(0, 0.6, 0.07, 0.4), FRAME, label)


def _from_the_side(sketch: Sketch, motor: bool, label: Label) -> None:
    """Two wheels and a frame; the gaps of the frame carry the label too."""
    reach, radius, tyre = (0.7, 0.32, 0.14) if motor else (0.54, 0.34, 0.05)
    for x in (-reach, reach):
        _wheel(sketch, x, radius, tyre, label)
    hull = [(-reach, radius), (0.0, 0.3), (reach, radius), (0.35, 0.82), (-0.2, 0.8)]
    sketch.sheet(hull, UNPAINTED, label)
    if motor:
        sketch.sheet(TANK, FRAME, label)
        sketch.sheet(ENGINE, TYRE, label)
    bars = (
        (-reach, radius, 0.0, 0.3),
        (0.0, 0.3, 0.38, 0.8),
        (-0.2, 0.8, 0.38, 0.8),
        (-0.2, 0.88, 0.0, 0.3),
        (reach, radius, 0.36, 1.0),
        (0.28, 1.02, 0.46, 1.0),
        (-0.32, 0.9, -0.08, 0.9),
    )
    for ax, ay, bx, by in bars:
        sketch.sheet(stroke(ax, ay, bx, by, 0.06), FRAME, label)


def _wheel(sketch: Sketch, x: float, radius: float, thickness: float, label: Label) -> None:
    """A tyre seen from the side; the whole disc carries the label, as annotators draw it."""
    sketch.sheet(disc(x, radius, radius), UNPAINTED, label)
    rim = disc(x, radius, radius - thickness / 2)
    for a, b in zip(rim, np.roll(rim, -1, axis=0), strict=True):
        sketch.sheet(stroke(a[0], a[1], b[0], b[1], thickness), TYRE)
    for a, b in zip(rim[:6:2], rim[6::2], strict=True):
        sketch.sheet(stroke(a[0], a[1], b[0], b[1], 0.02), FRAME)
