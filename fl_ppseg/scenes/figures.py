"""People on foot and on two wheels: flat figures that face the camera; x across, y up, in metres."""

import random
from functools import cache

import numpy as np

from fl_ppseg.scenes.cities import RGB
from fl_ppseg.scenes.labels import Label
from fl_ppseg.scenes.mesh import UNPAINTED, Floats, Item, Mesh, Sketch, disc, rectangle, stroke

SKIN, HAIR, TOP, LEGS, SHOES, BAG, FRAME, TYRE, LAMP = range(9)

CLOTHES: tuple[RGB, ...] = (
    (34, 36, 42),
    (52, 60, 86),
    (90, 84, 78),
    (150, 40, 44),
    (196, 190, 178),
    (64, 92, 74),
    (206, 176, 60),
    (112, 124, 152),
    (226, 226, 226),
    (140, 84, 110),
)
SKINS: tuple[RGB, ...] = ((226, 178, 150), (198, 148, 118), (146, 100, 76), (96, 66, 52))
HAIRS: tuple[RGB, ...] = ((40, 30, 26), (84, 60, 40), (168, 132, 82), (122, 118, 116))
FRAMES: tuple[RGB, ...] = (
    (30, 30, 34),
    (146, 30, 34),
    (46, 78, 130),
    (180, 182, 186),
    (60, 100, 70),
)
NUM_POSES = 8


def _palette(draw: random.Random) -> Floats:
    """Colours of the roles SKIN ... LAMP."""
    colours = (
        draw.choice(SKINS),
        draw.choice(HAIRS),
        draw.choice(CLOTHES),
        draw.choice(CLOTHES[:5]),
        (40, 34, 32),
        draw.choice(CLOTHES),
        draw.choice(FRAMES),
        (26, 26, 28),
        (208, 36, 30),
    )
    return np.asarray(colours, np.float32)


def _head(sketch: Sketch, x: float, y: float, label: Label, helmet: bool = False) -> None:
    """Face and hair, or a helmet, around (x, y)."""
    sketch.sheet(disc(x, y, 0.13, squash=0.85), SKIN, label)
    cap = disc(x, y + (0.04 if helmet else 0.06), 0.14 if helmet else 0.11, squash=0.9)
    sketch.sheet(cap, BAG if helmet else HAIR, label)


@cache
def walker(pose: int) -> Mesh:
    """A person of 1.72 m in one of NUM_POSES positions of a walk."""
    sketch = Sketch()
    step = (0.05, 0.12, 0.2, 0.28)[pose % 4]
    swing = (0.04, 0.16)[pose // 4]
    for side in (-1, 1):
        foot = side * step
        sketch.sheet(stroke(side * 0.07, 0.88, foot, 0.06, 0.16), LEGS, Label.PERSON)
        sketch.sheet(rectangle(foot + 0.03, 0.0, 0.2, 0.09), SHOES, Label.PERSON)
    for side in (-1, 1):
        hand = side * (0.2 + swing)
        sketch.sheet(stroke(side * 0.2, 1.4, hand, 0.82, 0.11), TOP, Label.PERSON)
        sketch.sheet(disc(hand, 0.8, 0.06, 6), SKIN, Label.PERSON)
    torso = [(-0.19, 0.82), (0.19, 0.82), (0.24, 1.36), (0.1, 1.48), (-0.1, 1.48), (-0.24, 1.36)]
    sketch.sheet(torso, TOP, Label.PERSON)
    if pose % 3 == 0:
        sketch.sheet(rectangle(0.24 + swing, 0.6, 0.24, 0.3), BAG, Label.PERSON)
    if pose % 3 == 1:
        sketch.sheet(rectangle(0.0, 0.98, 0.32, 0.42), BAG, Label.PERSON)
    _head(sketch, 0.0, 1.6, Label.PERSON)
    return sketch.build()


def _wheel(sketch: Sketch, x: float, radius: float, thickness: float, label: Label) -> None:
    """A tyre seen from the side; the whole disc carries the label, as annotators draw it."""
    sketch.sheet(disc(x, radius, radius), UNPAINTED, label)
    rim = disc(x, radius, radius - thickness / 2)
    for a, b in zip(rim, np.roll(rim, -1, axis=0), strict=True):
        sketch.sheet(stroke(a[0], a[1], b[0], b[1], thickness), TYRE)
    for a, b in zip(rim[:6:2], rim[6::2], strict=True):
        sketch.sheet(stroke(a[0], a[1], b[0], b[1], 0.02), FRAME)


@cache
def cycle(side: bool, motor: bool) -> Mesh:
    """A bicycle or a motorcycle, from the side or from behind, without its rider."""
    sketch = Sketch()
    label = Label.MOTORCYCLE if motor else Label.BICYCLE
    radius, tyre = (0.32, 0.14) if motor else (0.34, 0.05)
    if not side:
        sketch.sheet(rectangle(0, 0, 0.18 if motor else 0.09, 2 * radius), TYRE, label)
        if motor:
            sketch.sheet(
                [(-0.2, 0.4), (0.2, 0.4), (0.28, 0.75), (0.16, 0.95), (-0.16, 0.95), (-0.28, 0.75)],
                FRAME,
                label,
            )
            sketch.sheet(rectangle(0, 0.66, 0.2, 0.12), LAMP)
        sketch.sheet(stroke(-0.34, 1.02, 0.34, 1.02, 0.06), TYRE, label)
        sketch.sheet(rectangle(0, 0.6, 0.07, 0.4), FRAME, label)
        return sketch.build()
    reach = 0.7 if motor else 0.54
    for x in (-reach, reach):
        _wheel(sketch, x, radius, tyre, label)
    sketch.sheet(
        [(-reach, radius), (0.0, 0.3), (reach, radius), (0.35, 0.82), (-0.2, 0.8)], UNPAINTED, label
    )
    if motor:
        sketch.sheet(
            [
                (-0.45, 0.35),
                (0.3, 0.28),
                (0.5, 0.6),
                (0.35, 0.95),
                (0.05, 0.78),
                (-0.7, 0.8),
                (-0.72, 0.66),
            ],
            FRAME,
            label,
        )
        sketch.sheet([(-0.25, 0.22), (0.25, 0.22), (0.3, 0.5), (-0.3, 0.5)], TYRE, label)
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
    return sketch.build()


@cache
def rider(side: bool, helmet: bool) -> Mesh:
    """Who sits on it."""
    sketch = Sketch()
    label = Label.RIDER
    if side:
        for foot_x, foot_y in ((0.12, 0.22), (-0.08, 0.42)):
            knee = (foot_x + 0.24, foot_y + 0.38)
            sketch.sheet(stroke(-0.18, 0.92, *knee, 0.17), LEGS, label)
            sketch.sheet(stroke(*knee, foot_x, foot_y, 0.13), LEGS, label)
            sketch.sheet(rectangle(foot_x + 0.05, foot_y - 0.08, 0.24, 0.1), SHOES, label)
        sketch.sheet(
            [(-0.34, 0.86), (-0.04, 0.86), (0.22, 1.38), (0.1, 1.52), (-0.1, 1.46)], TOP, label
        )
        sketch.sheet(stroke(0.1, 1.38, 0.38, 1.02, 0.1), TOP, label)
        _head(sketch, 0.18, 1.64, label, helmet)
        return sketch.build()
    for x in (-0.14, 0.14):
        sketch.sheet(stroke(x * 0.8, 0.95, x, 0.32, 0.15), LEGS, label)
        sketch.sheet(rectangle(x, 0.24, 0.13, 0.1), SHOES, label)
    sketch.sheet(
        [(-0.19, 0.82), (0.19, 0.82), (0.25, 1.36), (0.1, 1.48), (-0.1, 1.48), (-0.25, 1.36)],
        TOP,
        label,
    )
    for x in (-1, 1):
        sketch.sheet(stroke(x * 0.22, 1.36, x * 0.36, 1.02, 0.11), TOP, label)
    _head(sketch, 0.0, 1.6, label, helmet)
    return sketch.build()


def draw_walker(draw: random.Random, x: float, z: float) -> list[Item]:
    """A person of 1.1 m (a child) to 1.95 m."""
    size = draw.uniform(0.93, 1.13) if draw.random() < 0.9 else draw.uniform(0.62, 0.8)
    width = size * draw.choice((-1, 1)) * draw.uniform(0.85, 1.15)
    mesh = walker(draw.randrange(NUM_POSES))
    return [Item(mesh, _palette(draw), x, z, 0.0, (width, size, size))]


def draw_rider(
    draw: random.Random, x: float, z: float, *, motor: bool, side: bool, ridden: bool = True
) -> list[Item]:
    """A bicycle or motorcycle with its rider, or parked without one."""
    width = draw.choice((-1, 1)) * (draw.uniform(0.6, 1.0) if side else 1.0)
    paint, scale = _palette(draw), (width, 1.0, 1.0)
    helmet = motor or draw.random() < 0.4
    machine = Item(cycle(side, motor), paint, x, z, 0.0, scale)
    body = Item(rider(side, helmet), paint, x, z, 0.0, scale)
    return [machine, body] if ridden else [machine]
