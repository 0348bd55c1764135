"""The same scene as its owner sees it, as a node sees it, and as each arm segments it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.classes import IGNORE_INDEX, ClassTable
from fl_ppseg.files import write_atomically
from fl_ppseg.report.inline import data_uri, dot, png

Image8 = NDArray[np.uint8]
DEMO_KEY = "throw-away demonstration key"


@dataclass(frozen=True, eq=False)
class ScenePanel:
    """One scene of a val city.

    Attributes:
        city: Where the scene lies.
        plain: (H, W, 3) uint8 RGB.
        plain_note: Whose image it is, e.g. `procedural scene` or `your own data`.
        encrypted: Label of the cipher -> (H, W, 3) uint8, under a throw-away key.
        label_map: (H, W) uint8 trainIds, 255 = ignored.
        predictions: Arm -> (H, W) uint8 trainIds.
    """

    city: str
    plain: Image8
    plain_note: str
    encrypted: Mapping[str, Image8]
    label_map: Image8
    predictions: Mapping[str, Image8]


@dataclass(frozen=True, eq=False)
class _Picture:
    kind: str
    caption: str
    note: str
    pixels: Image8


def scenes_html(
    panels: Sequence[ScenePanel], classes: ClassTable, colours: Mapping[str, str], directory: Path
) -> str:
    """Panels and their legend; each picture is also written to `directory`."""
    shown = "".join(
        _panel(index, panel, classes, colours, directory) for index, panel in enumerate(panels)
    )
    return f"{_legend(panels, classes)}{shown}" if panels else ""


def _panel(
    index: int,
    panel: ScenePanel,
    classes: ClassTable,
    colours: Mapping[str, str],
    directory: Path,
) -> str:
    inputs: list[str] = []
    answers: list[str] = []
    for picture in _pictures(panel, classes, list(colours)):
        content = png(picture.pixels)
        name = f"scene_{index}_{picture.kind}_{_slug(picture.caption)}.png"
        write_atomically(directory / name, content)
        strip = answers if picture.kind == "prediction" else inputs
        strip.append(_figure(picture, content, panel.city, colours))
    strips = "".join(f'<div class="strip">{"".join(strip)}</div>' for strip in (inputs, answers))
    return f'<div class="scene"><h3>{escape(panel.city)}</h3>{strips}</div>'


def _pictures(panel: ScenePanel, classes: ClassTable, arms: Sequence[str]) -> Iterator[_Picture]:
    yield _Picture("plain", "plain image", panel.plain_note, panel.plain)
    for cipher, pixels in panel.encrypted.items():
        yield _Picture("encrypted", cipher, f"encrypted, {DEMO_KEY}", pixels)
    yield _Picture("truth", "label map", "ground truth", classes.colourise(panel.label_map))
    order = [arm for arm in arms if arm in panel.predictions]
    for arm in [*order, *(arm for arm in panel.predictions if arm not in arms)]:
        answer = panel.predictions[arm]
        note = _agreement(answer, panel.label_map)
        yield _Picture("prediction", arm, note, classes.colourise(answer))


def _figure(picture: _Picture, content: bytes, city: str, colours: Mapping[str, str]) -> str:
    height, width = picture.pixels.shape[:2]
    caption, note = escape(picture.caption), escape(picture.note)
    disc = dot(colours.get(picture.caption)) if picture.kind == "prediction" else ""
    return (
        f'<figure class="{picture.kind}"><img src="{data_uri(content)}" width="{width}" '
        f'height="{height}" alt="{escape(city)}: {caption}, {note}">'
        f"<figcaption>{disc}<b>{caption}</b> <span>{note}</span></figcaption></figure>"
    )


def _agreement(answer: Image8, truth: Image8) -> str:
    """Share of this scene's labelled pixels that are right."""
    labelled = truth != IGNORE_INDEX
    if answer.shape != truth.shape or not labelled.any():
        return "prediction"
    return f"{100 * float((answer == truth)[labelled].mean()):.0f} % of pixels right"


def _legend(panels: Sequence[ScenePanel], classes: ClassTable) -> str:
    maps = [m for panel in panels for m in (panel.label_map, *panel.predictions.values())]
    shown = sorted({int(i) for train_ids in maps for i in np.unique(train_ids)})
    chips = [_chip(classes.names[i], classes.colours[i]) for i in shown if i < classes.num_classes]
    if IGNORE_INDEX in shown:
        chips.append(_chip("not labelled", np.zeros(3, dtype=np.uint8)))
    return f'<ul class="legend">{"".join(chips)}</ul>'


def _chip(name: str, colour: Image8) -> str:
    red, green, blue = (int(value) for value in colour)
    return f'<li><i style="--c:rgb({red},{green},{blue})"></i>{escape(name)}</li>'


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "unnamed"
