"""A picture of a page: in the page as a data URI, and beside it as a PNG file."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.report.inline import data_uri, png, swatch
from fl_ppseg.report.styles import ArmStyle
from fl_ppseg.system.files import write_atomically

Image8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """What a picture shows and what stands under it.

    Attributes:
        kind: Of what sort it is, a word; names its file and its class in the page.
        caption: What it shows, in a few words.
        note: More about it, in a sentence or a score.
        pixels: (H, W, 3) uint8 RGB.
        detail: Figures in a line of their own.
    """

    kind: str
    caption: str
    note: str
    pixels: Image8
    detail: str = ""


def figure(picture: Picture, name: str, directory: Path, style: ArmStyle | None = None) -> str:
    """The markup of a picture, which is also written to `directory`.

    Args:
        picture: What to show.
        name: Begins the name of its file.
        directory: Folder of the file.
        style: Of the arm that it is of, for a swatch before the caption.
    """
    content = png(picture.pixels)
    file = f"{name}_{picture.kind}_{slug(picture.caption)}.png"
    write_atomically(directory / file, content)
    height, width = picture.pixels.shape[:2]
    caption, note = escape(picture.caption), escape(picture.note)
    detail = f"<small>{escape(picture.detail)}</small>" if picture.detail else ""
    return (
        f'<figure class="{picture.kind}"><img src="{data_uri(content)}" width="{width}" '
        f'height="{height}" alt="{caption}, {note}">'
        f"<figcaption>{swatch(style)}<b>{caption}</b> <span>{note}</span>{detail}</figcaption>"
        "</figure>"
    )


def strip(figures: Iterable[str]) -> str:
    """Pictures side by side, as many as fit the page."""
    return f'<div class="strip">{"".join(figures)}</div>'


def slug(text: str) -> str:
    """A name as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "unnamed"
