"""Pictures inside a page: SVG that follows the page's colours, and PNG as data URIs."""

import base64
import io
import re
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fl_ppseg.report.styles import INK, MUTED, PAPER, RULE, ArmStyle

_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)", PAPER: "none"}
_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_SIZE = re.compile(r' (?:width|height)="[\d.]+pt"')
_ID = re.compile(r' id="([^"]+)"')
_USED = re.compile(r"#([\w-]+)")
_FONT = re.compile(r"'DejaVu Sans'(?:, [^;\"]*)?")


def inline_svg(svg: str, name: str, title: str) -> str:
    """Matplotlib's SVG file -> an `<svg>` element for a page.

    Args:
        svg: The file's text.
        name: Prefix of the ids, so that those of several figures do not meet.
        title: What a screen reader says, already escaped.
    """
    body = _METADATA.sub("", _PROLOGUE.sub("", svg))
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    used = set(_USED.findall(body))
    body = _ID.sub(lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = body.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    opening, rest = body.split(">", 1)
    opening = _SIZE.sub("", opening)
    return f'{opening} role="img" aria-label="{title}">{_FONT.sub("inherit", rest)}'


def chart(path: Path, caption: str = "") -> str:
    """A figure's SVG file -> its place in a page.

    Args:
        path: The file; its name is what a screen reader says.
        caption: What stands under it, as markup.
    """
    title = escape(path.stem.replace("_", " "))
    under = f"<figcaption>{caption}</figcaption>" if caption else ""
    return (
        f'<figure class="chart">{inline_svg(path.read_text("utf-8"), path.stem, title)}{under}'
        "</figure>"
    )


def swatch(style: ArmStyle | None) -> str:
    """A short line as an arm has it in the figures; nothing for what is no arm."""
    if style is None:
        return ""
    colour = _VARIABLES.get(style.colour, style.colour)
    return f'<i class="swatch" style="--c:{colour};--l:{style.line}"></i>'


def png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 RGB -> the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    """PNG bytes -> a data URI."""
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
