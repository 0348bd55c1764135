"""The same scene as its owner sees it, as a node sees it, and as each arm segments it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fl_ppseg.data.classes import IGNORE_INDEX, ClassTable
from fl_ppseg.pages.styles import ArmStyle
from fl_ppseg.report.pictures import Image8, Picture, slug, written

DEMO_KEY = "ephemeral demonstration key"


@dataclass(frozen=True, eq=False)
class ScenePanel:
    """One scene of a val client.

    Attributes:
        client: Whose scene it is.
        plain: (H, W, 3) uint8 RGB.
        plain_note: Whose image it is, e.g. `procedural scene` or `your own data`.
        encrypted: Label of the cipher -> (H, W, 3) uint8, under an ephemeral key.
        label_map: (H, W) uint8 trainIds, 255 = ignored.
        predictions: Arm -> (H, W) uint8 trainIds.
        key_predictions: Arm with a shared key -> `right`, `wrong`, `none` -> (H, W) uint8
            trainIds of a query encrypted with that key; `none` is the image as it is.
    """

    client: str
    plain: Image8
    plain_note: str
    encrypted: Mapping[str, Image8]
    label_map: Image8
    predictions: Mapping[str, Image8]
    key_predictions: Mapping[str, Mapping[str, Image8]] = field(default_factory=dict)


class CipherGallery(NamedTuple):
    """One image under every cipher, each with an ephemeral key.

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


class Scene(NamedTuple):
    """A panel as the page has it."""

    client: str
    inputs: list[Picture]
    """The image plain and encrypted, and its label map."""
    answers: list[Picture]
    """What each arm makes of it."""
    by_key: dict[str, list[Picture]]
    """What arms with a shared key make of queries under several keys."""


class Chip(NamedTuple):
    """A class of the legend."""

    name: str
    colour: str
    """As CSS has it."""


def scenes_of(
    panels: Sequence[ScenePanel],
    classes: ClassTable,
    styles: Mapping[str, ArmStyle],
    directory: Path,
) -> list[Scene]:
    """Panels as the page has them; each picture is also written to `directory`."""
    return [
        _scene(f"scene_{index}", panel, classes, styles, directory)
        for index, panel in enumerate(panels)
    ]


def hero_of(scene: Scene, arm: str, picture: str) -> list[Picture]:
    """One scene of the first screen: plain, encrypted, labelled, and segmented by an arm.

    Args:
        scene: Where to take the pictures from.
        arm: Whose answer is shown.
        picture: Caption of the encrypted picture; where there is none of it, the first is shown.
    """
    encrypted = [each for each in scene.inputs if each.kind == "encrypted"]
    shown = next((each for each in encrypted if each.caption == picture), None)
    return [
        *(each for each in scene.inputs if each.kind == "plain"),
        *([shown] if shown is not None else encrypted[:1]),
        *(each for each in scene.inputs if each.kind == "truth"),
        *(each for each in scene.answers if each.caption == arm),
    ]


def gallery_of(gallery: CipherGallery, directory: Path) -> list[Picture]:
    """One image under every cipher; each picture is also written to `directory`."""
    pictures = [Picture("plain", "plain image", gallery.note, gallery.plain)]
    pictures += [
        Picture("encrypted", cipher, "encrypted", pixels)
        for cipher, pixels in gallery.encrypted.items()
    ]
    return written(pictures, "gallery", directory)


def legend_of(panels: Sequence[ScenePanel], classes: ClassTable) -> list[Chip]:
    """The classes that the panels show."""
    maps = [m for panel in panels for m in _maps(panel)]
    shown = sorted({int(i) for train_ids in maps for i in np.unique(train_ids)})
    chips = [_chip(classes.names[i], classes.colours[i]) for i in shown if i < classes.num_classes]
    if IGNORE_INDEX in shown:
        chips.append(_chip("not labelled", np.zeros(3, dtype=np.uint8)))
    return chips


def _scene(
    name: str,
    panel: ScenePanel,
    classes: ClassTable,
    styles: Mapping[str, ArmStyle],
    directory: Path,
) -> Scene:
    arms = list(styles)
    return Scene(
        panel.client,
        written(_inputs(panel, classes), name, directory),
        written(_answers(panel, classes, styles), name, directory),
        {
            arm: written(_by_key(panel, arm, classes), f"{name}_{slug(arm)}", directory)
            for arm in _in_order(panel.key_predictions, arms)
        },
    )


def _inputs(panel: ScenePanel, classes: ClassTable) -> Iterator[Picture]:
    yield Picture("plain", "plain image", panel.plain_note, panel.plain)
    for cipher, pixels in panel.encrypted.items():
        yield Picture("encrypted", cipher, f"encrypted, {DEMO_KEY}", pixels)
    yield Picture("truth", "label map", "ground truth", classes.colourise(panel.label_map))


def _answers(
    panel: ScenePanel, classes: ClassTable, styles: Mapping[str, ArmStyle]
) -> Iterator[Picture]:
    for arm in _in_order(panel.predictions, list(styles)):
        answer = panel.predictions[arm]
        note = _agreement(answer, panel.label_map)
        yield Picture("prediction", arm, note, classes.colourise(answer), style=styles.get(arm))


def _by_key(panel: ScenePanel, arm: str, classes: ClassTable) -> Iterator[Picture]:
    """What an arm answers to queries under the right key, a wrong one and none."""
    answers = panel.key_predictions[arm]
    for key, words in KEYS.items():
        if key in answers:
            note = _agreement(answers[key], panel.label_map)
            yield Picture("key", words, note, classes.colourise(answers[key]))


def _in_order(shown: Iterable[str], arms: Sequence[str]) -> list[str]:
    """Arms of the run in its order, then others."""
    return sorted(shown, key=lambda arm: arms.index(arm) if arm in arms else len(arms))


def _agreement(answer: Image8, truth: Image8) -> str:
    """Share of this scene's labelled pixels that are right."""
    labelled = truth != IGNORE_INDEX
    if answer.shape != truth.shape or not labelled.any():
        return "prediction"
    return f"{100 * float((answer == truth)[labelled].mean()):.0f} % of pixels right"


def _maps(panel: ScenePanel) -> Iterator[Image8]:
    yield panel.label_map
    yield from panel.predictions.values()
    for answers in panel.key_predictions.values():
        yield from answers.values()


def _chip(name: str, colour: Image8) -> Chip:
    red, green, blue = (int(value) for value in colour)
    return Chip(name, f"rgb({red},{green},{blue})")
