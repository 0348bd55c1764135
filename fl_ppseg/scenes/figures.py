"""People on foot and on two wheels: flat figures that face the camera, in metres."""

import random
from functools import cache

import numpy as np

from fl_ppseg.scenes.cycles import cycle
from fl_ppseg.scenes.labels import Label
from fl_ppseg.scenes.mesh import Floats, Item, Mesh, Sketch, disc, rectangle, stroke
from fl_ppseg.scenes.worlds import RGB

SKIN, HAIR, TOP, LEGS, SHOES, BAG = range(6)

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
TORSO = ((-0.19, 0.82), (0.19, 0.82), (0.24, 1.36), (0.1, 1.48), (-0.1, 1.48), (-0.24, 1.36))


def _palette(draw: random.Random) -> Floats:
    """Colours of the roles SKIN ... BAG, then FRAME ... LAMP of `cycles`."""
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
    sketch.sheet(TORSO, TOP, Label.PERSON)
    if pose % 3 == 0:
        sketch.sheet(rectangle(0.24 + swing, 0.6, 0.24, 0.3), BAG, Label.PERSON)
    if pose % 3 == 1:
        sketch.sheet(rectangle(0.0, 0.98, 0.32, 0.42), BAG, Label.PERSON)
    _head(sketch, 0.0, 1.6, Label.PERSON)
    return sketch.build()


@cache
def rider(side: bool, helmet: bool) -> Mesh:
    """The rider of a bicycle or motorcycle, from the side or from behind."""
    sketch = Sketch()
    if side:
        _seated_from_the_side(sketch, Label.RIDER)
        _head(sketch, 0.18, 1.64, Label.RIDER, helmet)
    else:
        _seated_from_behind(sketch, Label.RIDER)
        _head(sketch, 0.0, 1.6, Label.RIDER, helmet)
    return sketch.build()


def _seated_from_the_side(sketch: Sketch, label: Label) -> None:
    for foot_x, foot_y in ((0.12, 0.22), (-0.08, 0.42)):
        knee = (foot_x + 0.24, foot_y + 0.38)
        sketch.sheet(stroke(-0.18, 0.92, *knee, 0.17), LEGS, label)
        sketch.sheet(stroke(*knee, foot_x, foot_y, 0.13), LEGS, label)
        sketch.sheet(rectangle(foot_x + 0.05, foot_y - 0.08, 0.24, 0.1), SHOES, label)
    torso = [(-0.34, 0.86), (-0.04, 0.86), (0.22, 1.38), (0.1, 1.52), (-0.1, 1.46)]
    sketch.sheet(torso, TOP, label)
    sketch.sheet(stroke(0.1, 1.38, 0.38, 1.02, 0.1), TOP, label)


def _seated_from_behind(sketch: Sketch, label: Label) -> None:
    for x in (-0.14, 0.14):
        sketch.sheet(stroke(x * 0.8, 0.95, x, 0.32, 0.15), LEGS, label)
        sketch.sheet(rectangle(x, 0.24, 0.13, 0.1), SHOES, label)
    sketch.sheet(TORSO, TOP, label)
    for x in (-1, 1):
        sketch.sheet(stroke(x * 0.22, 1.36, x * 0.36, 1.02, 0.11), TOP, label)


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
