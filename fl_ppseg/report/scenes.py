"""The same scene as its owner sees it, as a node sees it, and as each arm segments it."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.classes import IGNORE_INDEX, ClassTable
from fl_ppseg.files import write_atomically
from fl_ppseg.report.inline import data_uri, png, swatch
from fl_ppseg.report.styles import ArmStyle

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
        key_predictions: Arm with a shared key -> `right`, `wrong`, `none` -> (H, W) uint8
            trainIds of a query encrypted with that key; `none` is the image as it is.
    """

    city: str
    plain: Image8
    plain_note: str
    encrypted: Mapping[str, Image8]
    label_map: Image8
    predictions: Mapping[str, Image8]
    key_predictions: Mapping[str, Mapping[str, Image8]] = field(default_factory=dict)


class CipherGallery(NamedTuple):
    """One image under every cipher, each with a throw-away key.

    Attributes:
        plain: (H, W, 3) uint8 RGB.
        note: Whose image it is, as in `ScenePanel.plain_note`.
        encrypted: Label of the cipher -> (H, W, 3) uint8, in the order to show.
    """

    plain: Image8
    note: str
    encrypted: dict[str, Image8]


KEYS = {"right": "right key", "wrong": "wrong key", "none": "no key"}
"""The keys of `key_predictions` in the order to show, and in words."""


@dataclass(frozen=True, eq=False)
class _Picture:
    kind: str
    caption: str
    note: str
    pixels: Image8


def scenes_html(
    panels: Sequence[ScenePanel],
    classes: ClassTable,
    styles: Mapping[str, ArmStyle],
    directory: Path,
) -> str:
    """Panels and their legend; each picture is also written to `directory`."""
    shown = "".join(
        _panel(f"scene_{index}", panel, classes, styles, directory)
        for index, panel in enumerate(panels)
    )
    return f"{_legend(panels, classes)}{shown}" if panels else ""


def gallery_html(gallery: CipherGallery, directory: Path) -> str:
    """One image under every cipher; each picture is also written to `directory`."""
    pictures = [_Picture("plain", "plain image", gallery.note, gallery.plain)]
    pictures += [
        _Picture("encrypted", cipher, "encrypted", pixels)
        for cipher, pixels in gallery.encrypted.items()
    ]
    figures = (_figure(picture, "gallery", directory) for picture in pictures)
    return f'<div class="scene">{_strip(figures)}</div>'


def _panel(
    name: str,
    panel: ScenePanel,
    classes: ClassTable,
    styles: Mapping[str, ArmStyle],
    directory: Path,
) -> str:
    inputs = [_figure(picture, name, directory) for picture in _inputs(panel, classes)]
    answers = [
        _figure(picture, name, directory, styles.get(picture.caption))
        for picture in _answers(panel, classes, list(styles))
    ]
    keys = [
        _keys(f"{name}_{_slug(arm)}", arm, panel, classes, styles, directory)
        for arm in _in_order(panel.key_predictions, list(styles))
    ]
    by_key = f'<div class="keys">{"".join(keys)}</div>' if keys else ""
    return (
        f'<div class="scene"><h3>{escape(panel.city)}</h3>'
        f"{_strip(inputs)}{_strip(answers)}{by_key}</div>"
    )


def _inputs(panel: ScenePanel, classes: ClassTable) -> Iterator[_Picture]:
    yield _Picture("plain", "plain image", panel.plain_note, panel.plain)
    for cipher, pixels in panel.encrypted.items():
        yield _Picture("encrypted", cipher, f"encrypted, {DEMO_KEY}", pixels)
    yield _Picture("truth", "label map", "ground truth", classes.colourise(panel.label_map))


def _answers(panel: ScenePanel, classes: ClassTable, arms: Sequence[str]) -> Iterator[_Picture]:
    for arm in _in_order(panel.predictions, arms):
        answer = panel.predictions[arm]
        note = _agreement(answer, panel.label_map)
        yield _Picture("prediction", arm, note, classes.colourise(answer))


def _keys(
    name: str,
    arm: str,
    panel: ScenePanel,
    classes: ClassTable,
    styles: Mapping[str, ArmStyle],
    directory: Path,
) -> str:
    """What an arm answers to queries under the right key, a wrong one and none."""
    answers = panel.key_predictions[arm]
    pictures = [
        _Picture("key", words, _agreement(answers[key], panel.label_map), shown)
        for key, words in KEYS.items()
        if key in answers
        for shown in [classes.colourise(answers[key])]
    ]
    figures = (_figure(picture, name, directory) for picture in pictures)
    return f"<div><h4>{swatch(styles.get(arm))}{escape(arm)}</h4>{_strip(figures)}</div>"


def _in_order(shown: Iterable[str], arms: Sequence[str]) -> list[str]:
    """Arms of the run in its order, then others."""
    return sorted(shown, key=lambda arm: arms.index(arm) if arm in arms else len(arms))


def _strip(figures: Iterable[str]) -> str:
    return f'<div class="strip">{"".join(figures)}</div>'


def _figure(picture: _Picture, name: str, directory: Path, style: ArmStyle | None = None) -> str:
    content = png(picture.pixels)
    file = f"{name}_{picture.kind}_{_slug(picture.caption)}.png"
    write_atomically(directory / file, content)
    height, width = picture.pixels.shape[:2]
    caption, note = escape(picture.caption), escape(picture.note)
    return (
        f'<figure class="{picture.kind}"><img src="{data_uri(content)}" width="{width}" '
        f'height="{height}" alt="{caption}, {note}">'
        f"<figcaption>{swatch(style)}<b>{caption}</b> <span>{note}</span></figcaption></figure>"
    )


def _agreement(answer: Image8, truth: Image8) -> str:
    """Share of this scene's labelled pixels that are right."""
    labelled = truth != IGNORE_INDEX
    if answer.shape != truth.shape or not labelled.any():
        return "prediction"
    return f"{100 * float((answer == truth)[labelled].mean()):.0f} % of pixels right"


def _legend(panels: Sequence[ScenePanel], classes: ClassTable) -> str:
    maps = [m for panel in panels for m in _maps(panel)]
    shown = sorted({int(i) for train_ids in maps for i in np.unique(train_ids)})
    chips = [_chip(classes.names[i], classes.colours[i]) for i in shown if i < classes.num_classes]
    if IGNORE_INDEX in shown:
        chips.append(_chip("not labelled", np.zeros(3, dtype=np.uint8)))
    return f'<ul class="legend">{"".join(chips)}</ul>'


def _maps(panel: ScenePanel) -> Iterator[Image8]:
    yield panel.label_map
    yield from panel.predictions.values()
    for answers in panel.key_predictions.values():
        yield from answers.values()


def _chip(name: str, colour: Image8) -> str:
    red, green, blue = (int(value) for value in colour)
    return f'<li><i style="--c:rgb({red},{green},{blue})"></i>{escape(name)}</li>'


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "unnamed"
