"""Number plates of random characters, drawn in real fonts: DejaVu and Pillow's Aileron.

Both are free to use and lie in the packages that this program needs anyhow (DejaVu: Bitstream
Vera's licence, with matplotlib; Aileron: CC0, with Pillow). No plate of anybody is used.
"""

from functools import cache
from pathlib import Path
from typing import Final

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Bytes = npt.NDArray[np.uint8]

ALPHABET: Final = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
"""Letters that are taken for digits are left out, as many countries do: I, O, Q."""
NUM_CHARACTERS: Final = 6
FONTS: Final = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "")
"""Files of matplotlib's; the empty name is Pillow's own."""
GROUNDS: Final = ((236, 236, 232), (240, 204, 60), (226, 232, 240))
"""White, yellow, bluish white."""
FINE: Final = 40
"""Height of a character in pixels as it is drawn, before it is brought to its size."""
PITCH: Final = 0.92
"""From one character to the next, in heights of a character."""
WIDEST: Final = 0.8
"""Of a character, in heights of a character."""
MARGIN: Final = 0.32
"""Around the characters, in heights of a character."""
WIDTH: Final = NUM_CHARACTERS * PITCH + 2 * MARGIN
HEIGHT: Final = 1 + 2 * MARGIN
"""Sides of a plate, in heights of a character."""


def draw_truths(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """(count, NUM_CHARACTERS) indices into `ALPHABET`, all equally likely."""
    return rng.integers(len(ALPHABET), size=(count, NUM_CHARACTERS))


def text_of(truth: npt.NDArray[np.int64]) -> str:
    """(NUM_CHARACTERS,) indices -> the characters.

    >>> text_of(np.array([0, 1, 2, 23, 24, 25]))
    'ABC012'
    """
    return "".join(ALPHABET[index] for index in truth)


def draw_plate(
    truth: npt.NDArray[np.int64], height: float, rng: np.random.Generator
) -> tuple[Bytes, Bytes]:
    """Draw a plate, a little larger or smaller and turned by up to 2 degrees.

    Args:
        truth: (NUM_CHARACTERS,), what stands on it.
        height: Of a character, in pixels; 8 % more or less.
        rng: Draws font, colours and angle.

    Returns:
        (h, w, 3) uint8 RGB; (h, w) uint8, 255 where the plate covers what is behind it.
    """
    size = round(WIDTH * FINE), round(HEIGHT * FINE)
    ground = GROUNDS[rng.integers(len(GROUNDS))]
    plate = Image.new("RGB", size, ground)
    pen = ImageDraw.Draw(plate)
    red, green, blue = (int(value) for value in rng.integers(10, 45, size=3))
    ink = red, green, blue
    font = FONTS[rng.integers(len(FONTS))]
    pen.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=ink, width=2)
    for place, character in enumerate(text_of(truth)):
        glyph = _glyph(font, character)
        middle = (MARGIN + (place + 0.5) * PITCH) * FINE
        corner = round(middle - glyph.width / 2), (size[1] - glyph.height) // 2
        plate.paste(ink, corner, glyph)
    cover = Image.new("L", size, 255)
    angle, scale = rng.uniform(-2, 2), height * rng.uniform(0.92, 1.08) / FINE
    turned = [each.rotate(angle, Image.Resampling.BICUBIC, expand=True) for each in (plate, cover)]
    small = max(1, round(turned[0].width * scale)), max(1, round(turned[0].height * scale))
    pixels, mask = (np.asarray(each.resize(small, Image.Resampling.BOX)) for each in turned)
    return pixels, mask


@cache
def _glyph(font: str, character: str) -> Image.Image:
    """The cover of a character, `FINE` pixels high, narrowed where it is wider than its place."""
    left, top, right, bottom = (round(side) for side in _sized(font, 2 * FINE).getbbox(character))
    fine = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(fine).text((-left, -top), character, fill=255, font=_sized(font, 2 * FINE))
    width = round(fine.width * FINE / fine.height)
    return fine.resize((min(width, round(WIDEST * FINE)), FINE), Image.Resampling.BOX)


@cache
def _sized(name: str, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if not name:
        return ImageFont.load_default(size)
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / f"fonts/ttf/{name}.ttf", size)
