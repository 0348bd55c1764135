"""Pictures inside a page: SVG that follows the page's colours, and PNG as data URIs.

All markup that no template wrote is made here, of files that this program drew.
"""

import base64
import io
import re
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from fl_ppseg.pages.styles import CSS_COLOURS

_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_SIZE = re.compile(r' (?:width|height)="[\d.]+pt"')
_ID = re.compile(r' id="([^"]+)"')
_USED = re.compile(r"#([\w-]+)")
_FONT = re.compile(r"'DejaVu Sans'(?:, [^;\"]*)?")


def inline_svg(path: Path) -> Markup:
    """Matplotlib's SVG file -> an `<svg>` element for a page.

    Its ids begin with the file's name, so that those of several figures differ; that name is also
    what a screen reader says.
    """
    name, title = path.stem, escape(path.stem.replace("_", " "))
    body = _METADATA.sub("", _PROLOGUE.sub("", path.read_text("utf-8")))
    for colour, variable in CSS_COLOURS.items():
        body = body.replace(colour, variable)
    used = set(_USED.findall(body))
    body = _ID.sub(lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = body.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    opening, rest = body.split(">", 1)
    opening = _SIZE.sub("", opening)
    return Markup(f'{opening} role="img" aria-label="{title}">{_FONT.sub("inherit", rest)}')


def png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 RGB -> the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(content: bytes) -> Markup:
    """PNG bytes -> a data URI, which is not a path and has nothing to escape."""
    return Markup(f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}")
