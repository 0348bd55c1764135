"""Poles with traffic lights, signs and lamps, and bins; metal and colours at eye height."""

import random
from functools import cache

import numpy as np

from fl_ppseg.scenes.labels import Label
from fl_ppseg.scenes.mesh import Floats, Item, Mesh, Sketch, disc, rectangle, stroke

METAL, BOX, RED, AMBER, GREEN, FACE, RIM, MARK = range(8)

SIGN_COLOURS = {
    "round": ((238, 238, 236), (196, 28, 32), (30, 30, 32)),
    "blue": ((28, 84, 168), (228, 228, 228), (236, 236, 236)),
    "triangle": ((238, 238, 236), (196, 28, 32), (30, 30, 32)),
    "priority": ((240, 196, 30), (236, 236, 232), (240, 196, 30)),
    "square": ((28, 84, 168), (28, 84, 168), (236, 236, 236)),
    "guide": ((240, 200, 40), (30, 30, 30), (30, 30, 30)),
}
"""Face, rim and mark of each kind of sign."""


def _palette(lit: int = RED, kind: str = "round", metal: float = 120.0) -> Floats:
    """Colours of the roles METAL ... MARK, with one lamp lit."""
    lamps = {RED: (250, 40, 30), AMBER: (255, 180, 40), GREEN: (50, 240, 130)}
    dark = {RED: (70, 20, 18), AMBER: (74, 54, 18), GREEN: (16, 62, 36)}
    shown = [lamps[role] if role == lit else dark[role] for role in (RED, AMBER, GREEN)]
    grey = (metal, metal, metal * 1.03)
    return np.asarray((grey, (28, 32, 30), *shown, *SIGN_COLOURS[kind]), np.float32)


def _lamps(sketch: Sketch, x: float, y: float) -> None:
    """A traffic light's head, 0.42 m x 1.15 m, its foot at y."""
    sketch.sheet(rectangle(x, y, 0.42, 1.15), BOX, Label.TRAFFIC_LIGHT)
    for role, up in ((GREEN, 0.2), (AMBER, 0.57), (RED, 0.94)):
        sketch.sheet(disc(x, y + up, 0.16, 8), role)


@cache
def traffic_light(arm: float) -> Mesh:
    """A pole with one head, and a second one on an arm of `arm` metres (0 for none)."""
    sketch = Sketch()
    height = 5.6 if arm else 3.6
    sketch.sheet(rectangle(0, 0, 0.16, height), METAL, Label.POLE)
    if arm:
        sketch.sheet(stroke(0, height, arm, height, 0.13), METAL, Label.POLE)
        _lamps(sketch, arm, height - 0.95)
    _lamps(sketch, 0.0, 2.4)
    return sketch.build()


@cache
def street_lamp(arm: float) -> Mesh:
    """A pole of 7 m with a lamp on an arm."""
    sketch = Sketch()
    sketch.sheet(rectangle(0, 0, 0.17, 7.0), METAL, Label.POLE)
    sketch.sheet(stroke(0, 6.9, arm, 7.3, 0.1), METAL, Label.POLE)
    sketch.sheet(stroke(arm * 0.75, 7.25, arm * 1.25, 7.32, 0.2), FACE, Label.POLE)
    return sketch.build()


@cache
def sign(kind: str) -> Mesh:
    """A traffic sign on its pole; kinds as in SIGN_COLOURS."""
    sketch = Sketch()
    sketch.sheet(rectangle(0, 0, 0.1, 3.0), METAL, Label.POLE)
    y = 2.65
    outline, mark = {
        "round": (disc(0, y, 0.42), rectangle(0, y - 0.13, 0.3, 0.26)),
        "blue": (disc(0, y, 0.42), stroke(-0.1, y - 0.2, 0.1, y + 0.2, 0.12)),
        "triangle": (
            np.asarray([(-0.5, y - 0.38), (0.5, y - 0.38), (0.0, y + 0.5)], np.float32),
            rectangle(0, y - 0.24, 0.09, 0.38),
        ),
        "priority": (disc(0, y, 0.48, 4), disc(0, y, 0.2, 4)),
        "square": (rectangle(0, y - 0.4, 0.8, 0.8), rectangle(0, y - 0.22, 0.34, 0.44)),
        "guide": (rectangle(0, y - 0.45, 2.0, 0.95), rectangle(-0.1, y - 0.05, 1.3, 0.12)),
    }[kind]
    centre = outline.mean(0)
    sketch.sheet(outline, RIM, Label.TRAFFIC_SIGN)
    sketch.sheet(centre + 0.74 * (outline - centre), FACE)
    sketch.sheet(mark, MARK)
    return sketch.build()


@cache
def street_bin(label: Label) -> Mesh:
    """A bin, a box or a cone: things that carry a void label."""
    sketch = Sketch()
    outline = np.asarray([(-0.26, 0), (0.26, 0), (0.32, 1.05), (-0.32, 1.05)], np.float32)
    sketch.sheet(outline, FACE, label)
    sketch.sheet(rectangle(0, 0.95, 0.66, 0.12), METAL)
    return sketch.build()


def draw_traffic_light(draw: random.Random, x: float, z: float, glow: float) -> list[Item]:
    """A traffic light; its arm, if any, reaches over the road."""
    arm = draw.choice((0.0, 3.0)) * (-1 if x > 0 else 1)
    lit = draw.choice((RED, GREEN, GREEN, AMBER))
    paint = _palette(lit, metal=draw.uniform(90, 150))
    paint[lit] *= glow
    return [Item(traffic_light(arm), paint, x, z)]


def draw_sign(draw: random.Random, x: float, z: float) -> list[Item]:
    """A sign of any kind, sometimes two on one pole."""
    kind = draw.choice(tuple(SIGN_COLOURS))
    size = draw.uniform(0.75, 1.05)
    return [Item(sign(kind), _palette(kind=kind, metal=150), x, z, 0.0, (size, size, size))]


def draw_lamp(draw: random.Random, x: float, z: float) -> list[Item]:
    """A street lamp that leans over the road."""
    paint = _palette(metal=draw.uniform(70, 140))
    return [Item(street_lamp(-1.6 if x > 0 else 1.6), paint, x, z)]


def draw_bin(draw: random.Random, x: float, z: float) -> list[Item]:
    """A thing without a class of its own."""
    kind = draw.choice(tuple(SIGN_COLOURS))
    mesh = street_bin(draw.choice((Label.STATIC, Label.DYNAMIC)))
    return [Item(mesh, 0.7 * _palette(kind=kind, metal=80), x, z)]
