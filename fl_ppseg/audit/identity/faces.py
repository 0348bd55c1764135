"""Drawn faces: a person is a vector of traits, a photograph adds light, expression and pose.

Real faces are not used: scikit-image ships a hundred, one photograph a person, grey and of 25x25
pixels, cut from news photographs whose licence it does not state; of one photograph a person a
matcher of pictures and a matcher of faces cannot be told apart. Drawn faces are simpler than real
ones, so these counts are not those of real people.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Bytes = npt.NDArray[np.uint8]
Person = npt.NDArray[np.float64]
"""(NUM_TRAITS,) in [0, 1]."""

NUM_TRAITS: Final = 16
FINE: Final = 96
"""Height of a face in pixels as it is drawn, before it is brought to its size."""
SKINS: Final = ((255, 220, 190), (92, 60, 42))
HAIRS: Final = ((28, 22, 20), (214, 178, 110), (150, 146, 142), (120, 58, 34))


def draw_people(count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(count, NUM_TRAITS), every trait uniform."""
    return rng.random((count, NUM_TRAITS))


def draw_face(person: Person, height: float, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Draw a photograph of a person.

    Args:
        person: (NUM_TRAITS,) in [0, 1].
        height: Of the face, in pixels; 6 % more or less.
        rng: Draws light, expression, gaze and angle.

    Returns:
        (h, w, 3) uint8 RGB; (h, w) uint8, 255 where the face covers what is behind it.
    """
    cover = Image.new("L", (FINE, FINE), 0)
    face = Image.new("RGB", (FINE, FINE))
    half = FINE * (0.30 + 0.10 * person[0])
    middle = FINE / 2
    outline = (middle - half, 2, middle + half, FINE - 3)
    hair = _hair(person)
    for image, colour in ((face, hair), (cover, 255)):
        ImageDraw.Draw(image).ellipse(outline, fill=colour)
    _paint(ImageDraw.Draw(face), person, half, rng)
    pixels = _lit(np.asarray(face, np.float64), rng)
    angle, scale = rng.uniform(-6, 6), height * rng.uniform(0.94, 1.06) / FINE
    side = max(1, round(FINE * scale))
    turned = (
        each.rotate(angle, Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.BOX)
        for each in (Image.fromarray(pixels), cover)
    )
    colours, mask = (np.asarray(each) for each in turned)
    return colours, mask


def _hair(person: Person) -> tuple[int, int, int]:
    kind = min(int(person[1] * len(HAIRS)), len(HAIRS) - 1)
    red, green, blue = HAIRS[kind]
    return red, green, blue


def _paint(pen: ImageDraw.ImageDraw, person: Person, half: float, rng: np.random.Generator) -> None:
    """Skin under the hair line, then brows, eyes, nose, mouth and beard."""
    _, _, line, skin, apart, eye, iris, brow, tilt, nose, wide, lips, beard, level, low, jaw = (
        person
    )
    light, dark = (np.array(each) for each in SKINS)
    flesh = light + skin * (dark - light)
    middle, hair = FINE / 2, _hair(person)
    top = FINE * (0.10 + 0.16 * line)
    across = half * (0.86 + 0.1 * jaw)
    pen.ellipse((middle - across, top, middle + across, FINE - 4), fill=_bytes(flesh))
    smile, gaze = rng.uniform(-3, 5), rng.uniform(-1.5, 1.5)
    height = FINE * (0.40 + 0.09 * level)
    if beard > 0.6:
        pen.chord((middle - half * 0.8, FINE * 0.55, middle + half * 0.8, FINE - 4), 10, 170, hair)
    for side in (-1, 1):
        x = middle + side * half * (0.36 + 0.18 * apart)
        reach, lid = FINE * (0.05 + 0.035 * eye), FINE * (0.02 + 0.02 * eye)
        pen.ellipse((x - reach, height - lid, x + reach, height + lid), fill=(240, 240, 236))
        dot = lid * 0.95
        colour = _bytes(np.array((40, 30, 20)) + iris * np.array((40, 100, 150)))
        pen.ellipse((x - dot + gaze, height - dot, x + dot + gaze, height + dot), fill=colour)
        rise, above = (tilt - 0.5) * 8, height - FINE * (0.07 + 0.03 * brow)
        ends = (x - reach, above + side * rise, x + reach, above - side * rise)
        pen.line(ends, fill=hair, width=round(1 + 4 * brow))
    tip, spread = height + FINE * (0.12 + 0.09 * nose), FINE * (0.03 + 0.04 * wide)
    pen.polygon(
        ((middle, height), (middle - spread, tip), (middle + spread, tip)),
        fill=_bytes(flesh * 0.84),
    )
    mouth, lip = FINE * (0.72 + 0.07 * low), half * (0.25 + 0.3 * lips)
    red = _bytes(flesh * np.array((0.86, 0.5, 0.5)))
    pen.arc((middle - lip, mouth - 6 - smile, middle + lip, mouth + smile), 15, 165, red, 4)


def _lit(pixels: npt.NDArray[np.float64], rng: np.random.Generator) -> Bytes:
    """Light from one side, its strength and colour."""
    side = 1 + rng.uniform(-0.25, 0.25) * np.linspace(-1, 1, FINE)[None, :, None]
    balance = rng.uniform(0.7, 1.05) * rng.uniform(0.95, 1.05, size=3)
    return (pixels * side * balance).clip(0, 255).astype(np.uint8)


def _bytes(colour: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in colour.clip(0, 255))
    return red, green, blue
