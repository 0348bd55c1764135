"""A picture of a page: in the page as a data URI, and beside it as a PNG file."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fl_ppseg.pages.inline import data_uri, png
from fl_ppseg.pages.styles import ArmStyle
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
        style: Of the arm that it is of, for a swatch before the caption.
    """

    kind: str
    caption: str
    note: str
    pixels: Image8
    detail: str = ""
    style: ArmStyle | None = None

    @cached_property
    def content(self) -> bytes:
        """Its PNG file."""
        return png(self.pixels)

    @property
    def uri(self) -> Markup:
        """The picture itself, for a page."""
        return data_uri(self.content)

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])


def written(pictures: Iterable[Picture], name: str, directory: Path) -> list[Picture]:
    """The pictures, which are also written to `directory`, each to a file whose name begins so."""
    shown = list(pictures)
    for each in shown:
        write_atomically(directory / f"{name}_{each.kind}_{slug(each.caption)}.png", each.content)
    return shown


def slug(text: str) -> str:
    """A name as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "unnamed"
