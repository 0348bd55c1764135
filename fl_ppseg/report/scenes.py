"""The same scene as its owner sees it, as a node sees it, and as each arm segments it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fl_ppseg.data.classes import IGNORE_INDEX, ClassTable
from fl_ppseg.report.inline import swatch
from fl_ppseg.report.pictures import Image8, Picture, figure, slug, strip
from fl_ppseg.report.styles import ArmStyle

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
    pictures = [Picture("plain", "plain image", gallery.note, gallery.plain)]
    pictures += [
        Picture("encrypted", cipher, "encrypted", pixels)
        for cipher, pixels in gallery.encrypted.items()
    ]
    figures = (figure(picture, "gallery", directory) for picture in pictures)
    return f'<div class="scene">{strip(figures)}</div>'


def _panel(
    name: str,
    panel: ScenePanel,
    classes: ClassTable,
    styles: Mapping[str, ArmStyle],
    directory: Path,
) -> str:
    inputs = [figure(picture, name, directory) for picture in _inputs(panel, classes)]
    answers = [
        figure(picture, name, directory, styles.get(picture.caption))
        for picture in _answers(panel, classes, list(styles))
    ]
    keys = [
        _keys(f"{name}_{slug(arm)}", arm, panel, classes, styles, directory)
        for arm in _in_order(panel.key_predictions, list(styles))
    ]
    by_key = f'<div class="keys">{"".join(keys)}</div>' if keys else ""
    return (
        f'<div class="scene"><h3>{escape(panel.city)}</h3>'
        f"{strip(inputs)}{strip(answers)}{by_key}</div>"
    )


def _inputs(panel: ScenePanel, classes: ClassTable) -> Iterator[Picture]:
    yield Picture("plain", "plain image", panel.plain_note, panel.plain)
    for cipher, pixels in panel.encrypted.items():
        yield Picture("encrypted", cipher, f"encrypted, {DEMO_KEY}", pixels)
    yield Picture("truth", "label map", "ground truth", classes.colourise(panel.label_map))


def _answers(panel: ScenePanel, classes: ClassTable, arms: Sequence[str]) -> Iterator[Picture]:
    for arm in _in_order(panel.predictions, arms):
        answer = panel.predictions[arm]
        note = _agreement(answer, panel.label_map)
        yield Picture("prediction", arm, note, classes.colourise(answer))


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
        Picture("key", words, _agreement(answers[key], panel.label_map), shown)
        for key, words in KEYS.items()
        if key in answers
        for shown in [classes.colourise(answers[key])]
    ]
    figures = (figure(picture, name, directory) for picture in pictures)
    return f"<div><h4>{swatch(styles.get(arm))}{escape(arm)}</h4>{strip(figures)}</div>"


def _in_order(shown: Iterable[str], arms: Sequence[str]) -> list[str]:
    """Arms of the run in its order, then others."""
    return sorted(shown, key=lambda arm: arms.index(arm) if arm in arms else len(arms))


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
