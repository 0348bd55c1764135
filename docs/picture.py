"""The picture of README: who holds what. `python docs/picture.py` writes docs/picture.svg.

The encrypted street is the plain one, its pixels moved within blocks of 4x4 and some of their
values inverted, as the default cipher does; each owner's by draws of its own.
"""

import random
from collections.abc import Iterator
from html import escape
from pathlib import Path

Colour = tuple[int, int, int]
PICTURE = Path(__file__).with_name("picture.svg")
WIDTH, HEIGHT, BLOCK, PIXEL = 28, 16, 4, 4
INK, QUIET, GOOD, BAD = "#1f2937", "#6b7280", "#047857", "#b91c1c"
KEYS = ("#d97706", "#0d9488")


def street(shift: int) -> dict[tuple[int, int], Colour]:
    """A street of WIDTH x HEIGHT pixels: sky, houses, trees, a road, a car."""
    pixels: dict[tuple[int, int], Colour] = {}
    for x in range(WIDTH):
        house = 4 + (x + shift) // 5 * 7 % 4
        tree = (x + 2 * shift) % 9 == 4
        for y in range(HEIGHT):
            colour = (150, 196, 235) if y < house else (176, 122 + 9 * (house % 3), 100)
            if y >= house and (x + shift) % 5 in (1, 3) and y % 3 == 1:
                colour = (74, 84, 104)
            if tree and 6 <= y < 11:
                colour = (62, 130, 66)
            if y >= 11:
                colour = (196, 190, 182) if y == 11 else (92, 94, 100)
            if y == 14 and x % 4 < 2:
                colour = (232, 232, 226)
            pixels[x, y] = colour
    car = 8 + 3 * shift
    for x in range(car, car + 7):
        for y in (11, 12, 13):
            pixels[x, y] = (200, 46, 52) if y > 11 or car < x < car + 5 else pixels[x, y]
    for x in (car + 1, car + 5):
        pixels[x, 13] = (28, 28, 30)
    return pixels


def encrypted(pixels: dict[tuple[int, int], Colour], seed: int) -> dict[tuple[int, int], Colour]:
    """The same under a key a block: pixels change places, each value is inverted or not."""
    draws = random.Random(seed)
    result: dict[tuple[int, int], Colour] = {}
    for left in range(0, WIDTH, BLOCK):
        for top in range(0, HEIGHT, BLOCK):
            places = [(left + x, top + y) for x in range(BLOCK) for y in range(BLOCK)]
            for place, source in zip(places, draws.sample(places, len(places)), strict=True):
                r, g, b = (v if draws.random() < 0.5 else 255 - v for v in pixels[source])
                result[place] = (r, g, b)
    return result


def image(pixels: dict[tuple[int, int], Colour], x: int, y: int) -> Iterator[str]:
    """Pixels as squares, in a frame."""
    yield f'<g transform="translate({x} {y})" shape-rendering="crispEdges">'
    squares: dict[Colour, list[str]] = {}
    for (column, row), colour in sorted(pixels.items()):
        square = f"M{column * PIXEL} {row * PIXEL}h{PIXEL}v{PIXEL}h-{PIXEL}z"
        squares.setdefault(colour, []).append(square)
    for (r, g, b), places in squares.items():
        yield f'<path fill="#{r:02x}{g:02x}{b:02x}" d="{"".join(places)}"/>'
    yield f'<rect width="{WIDTH * PIXEL}" height="{HEIGHT * PIXEL}" fill="none" stroke="{INK}"/>'
    yield "</g>"


def text(words: str, x: int, y: int, size: int = 14, fill: str = INK, more: str = "") -> str:
    """A line of text."""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" {more}>{escape(words)}</text>'


def box(x: int, y: int, width: int, height: int, fill: str) -> str:
    """A machine."""
    size = f'x="{x}" y="{y}" width="{width}" height="{height}"'
    return f'<rect {size} rx="10" fill="{fill}" stroke="#cbd5e1" stroke-width="1.5"/>'


def key(x: int, y: int, colour: str) -> str:
    """A key."""
    bow = '<circle r="8" fill="none" stroke-width="5"/>'
    blade = '<path d="M8 0H36M28 0v9M36 0v8" fill="none" stroke-width="5"/>'
    return f'<g transform="translate({x} {y})" stroke="{colour}">{bow}{blade}</g>'


def arrow(x1: int, x2: int, y: int, both: bool = False) -> str:
    """An arrow to the right, or both ways."""
    start = ' marker-start="url(#tip)"' if both else ""
    line = f'd="M{x1} {y}H{x2}" stroke="{INK}" stroke-width="2"'
    return f'<path {line} marker-end="url(#tip)"{start}/>'


def picture() -> str:
    """The whole picture."""
    bold, middle = 'font-weight="700"', 'text-anchor="middle"'
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 500" width="1000" height="500" '
        'font-family="Helvetica, Arial, sans-serif" role="img" aria-labelledby="title">',
        '<title id="title">Owners encrypt images with keys of their own; nodes train on encrypted '
        "images; a coordinator averages weights</title>",
        f'<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        f'markerHeight="8" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{INK}"/>'
        "</marker></defs>",
        '<rect width="1000" height="500" rx="14" fill="#ffffff"/>',
        text("Owner", 24, 38, 18, more=bold),
        text("Training node, may be rented", 376, 38, 18, more=bold),
        text("Coordinator", 744, 38, 18, more=bold),
    ]
    for row, colour in enumerate(KEYS):
        top = 56 + 134 * row
        plain = street(row)
        lines += [box(24, top, 264, 116, "#f0fdf4"), *image(plain, 40, top + 16)]
        lines += [key(182, top + 40, colour), text("own key,", 174, top + 66, 13)]
        lines += [text("made here,", 174, top + 82, 13), text("never shown", 174, top + 98, 13)]
        lines += [text("images", 40, top + 100, 13, QUIET)]
        lines += [arrow(292, 370, top + 58), text("encrypts", 331, top + 48, 13, INK, middle)]
        lines += [box(376, top, 264, 116, "#f8fafc")]
        lines += [*image(encrypted(plain, row + 1), 392, top + 16)]
        lines += [text("label maps,", 520, top + 34, 13), text("a copy of", 520, top + 56, 13)]
        lines += [text("the model", 520, top + 72, 13)]
        lines += [text("encrypted images", 392, top + 100, 13, QUIET)]
        lines += [arrow(646, 738, top + 58, both=True)]
        lines += [text("weights", 692, top + 48, 13, INK, middle)]
    lines += [
        box(744, 56, 232, 250, "#eff6ff"),
        text("averages the weights", 860, 150, 15, more=f"{middle} {bold}"),
        text("round after round,", 860, 174, 14, more=middle),
        text("sums up the scores,", 860, 194, 14, more=middle),
        text("writes the report", 860, 214, 14, more=middle),
        *_holdings(),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _holdings() -> Iterator[str]:
    """What each party holds, and what it never gets."""
    columns = (
        (
            24,
            ("images and label maps", "master key, in a vault"),
            "shows to nobody",
            ("images", "keys"),
        ),
        (
            376,
            ("encrypted images, the model", "label maps as they are"),
            "is never sent",
            ("images", "keys (but a private embedding", "is worth its owner's key)"),
        ),
        (
            744,
            ("weights of every node", "losses and class counts"),
            "is never sent",
            ("images", "keys and private embeddings", "label maps (it can infer some)"),
        ),
    )
    for x, holds, not_for_it, never in columns:
        yield text("holds", x, 346, 13, GOOD, 'font-weight="700"')
        for number, words in enumerate(holds):
            yield text(words, x, 366 + 19 * number)
        yield text(not_for_it, x, 420, 13, BAD, 'font-weight="700"')
        for number, words in enumerate(never):
            yield text(words, x, 440 + 19 * number, 14)


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
