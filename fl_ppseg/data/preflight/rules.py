"""Rules of the preflight check: data that cannot be used, and warnings."""

from collections.abc import Sequence

import numpy as np

from fl_ppseg.data.classes import IGNORE_INDEX
from fl_ppseg.data.preflight.scan import CityLabels, Scan
from fl_ppseg.data.tree_layout import bounded, counted
from fl_ppseg.system.errors import InputError

TRAIN_IDS = "cityscapes-train-ids"
"""The class table of label maps that hold trainIds."""


def refuse_unusable(found: Scan) -> None:
    """Refuse data that cannot be trained on or scored.

    Raises:
        InputError: The label maps of a city hold trainIds; or no training image, or no image of a
            scored city, has a labelled pixel.
    """
    if others := [city for city in found.cities if holds_train_ids(city)]:
        raise _train_ids(others)
    training = found.of_split("train")
    if training and not any(city.labelled for city in training):
        raise InputError(
            f"{training[0].folder.parent}: no training image has a labelled pixel "
            f"({_met(training)}); check the label maps and "
            "the class table (data.classes)"
        )
    empty = [city for city in found.cities if city.split != "train" and not city.labelled]
    if empty:
        raise InputError(
            f"{empty[0].folder}: no labelled pixel ({_met(empty)}), so nothing can be scored on "
            f"{bounded([f'{city.split}/{city.city}' for city in empty])}; add labels, choose "
            "the class table that its label maps are written with (data.classes), or remove it"
        )


def warnings(found: Scan) -> list[str]:
    """Warnings, one per line: training cities without labels, images that EXIF turns."""
    lines = [
        f"{city.folder}: no labelled pixel in {counted(city.num_images, 'label map')} of training "
        f"city {city.city} ({_met([city])}), so it cannot train"
        for city in found.of_split("train")
        if not city.labelled
    ]
    turned = {f"{c.split}/{c.city} {c.num_turned}": c.num_turned for c in found.cities}
    turned = {text: number for text, number in turned.items() if number}
    if turned:
        lines.append(
            f"EXIF orientation applied to {counted(sum(turned.values()), 'image')}, as viewers "
            f"show them ({bounded(list(turned))}); their label maps must be drawn that way"
        )
    return lines


def holds_train_ids(city: CityLabels) -> bool:
    """Whether label maps hold trainIds under the name of labelIds.

    They may where all values are trainIds or 255. They do, of such, where most classes have larger
    labelIds, of which none occurs, and at least half of the trainIds do; or where, 0 left out,
    which is road or nothing, fewer than half as many pixels are of a class if they are read as
    labelIds.
    """
    num_classes, is_scored = city.classes.num_classes, city.classes.label_to_train != IGNORE_INDEX
    values = np.arange(256)
    is_train_id = values < num_classes
    if city.counts[~is_train_id & (values != IGNORE_INDEX)].any():
        return False
    larger = np.unique(city.classes.label_to_train[is_scored & ~is_train_id])
    num_met = np.count_nonzero(city.counts[is_train_id])
    if 2 * len(larger) >= num_classes and 2 * num_met >= num_classes:
        return True
    others = city.counts.copy()
    others[0] = 0
    return int(others[is_train_id].sum()) > 2 * int(others[is_scored].sum())


def _train_ids(cities: Sequence[CityLabels]) -> InputError:
    first = cities[0]
    top = np.flatnonzero(first.classes.label_to_train != IGNORE_INDEX)
    never = [int(k) for k in top if not first.counts[k]]
    also = [f"{city.split}/{city.city}" for city in cities[1:]]
    more = f", and so do {bounded(also)}" if also else ""
    return InputError(
        f"{first.folder}: these label maps seem to hold trainIds ({_met([first])}; labelIds "
        f"{bounded(list(map(str, never)), 6)} never occur){more}; write labelIds into them, or "
        f"name a class table whose label_ids are the trainIds: data.classes={TRAIN_IDS} (evaluate: "
        "--classes) has Cityscapes' 19"
    )


def _met(cities: Sequence[CityLabels]) -> str:
    counts = np.sum([city.counts for city in cities], axis=0)
    ids = [str(k) for k in np.flatnonzero(counts)]
    return f"values met: {bounded(ids, 12)}"
