"""The class table of a model of which only the names of its classes are known."""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from fl_ppseg.config.loading import load_config
from fl_ppseg.data.classes import IGNORE_INDEX, ClassTable, built_in_tables, load_class_table
from fl_ppseg.system.errors import InputError

GOLDEN: Final = 0.618033988749895
"""Of the hue circle, between one class and the next: no two of a few hundred are alike."""


def table_named(names: Sequence[str], config: Path | None) -> ClassTable:
    """The table whose classes have these names.

    It is that of the run's config, or a built-in one; where none has these names, each class has
    its trainId as labelId, and a colour of its own.

    Args:
        names: By trainId.
        config: The config.yaml of the run, if it is there.

    Raises:
        InputError: There are more classes than a label map of 8 bits can hold.
    """
    if len(names) > IGNORE_INDEX:
        raise InputError(f"expected at most {IGNORE_INDEX} classes, got {len(names)}")
    built_in = [load_class_table(name) for name in built_in_tables()]
    tables = [table for table in (_of_run(config), *built_in) if table is not None]
    return next((each for each in tables if list(each.names) == list(names)), _made(names))


def _of_run(config: Path | None) -> ClassTable | None:
    if config is None:
        return None
    try:
        return load_class_table(load_config(config).data.classes)
    except InputError:  # another machine's path, or a config of another version
        return None


def _made(names: Sequence[str]) -> ClassTable:
    label_to_train = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    label_to_train[: len(names)] = np.arange(len(names))
    hues = (np.arange(len(names)) * GOLDEN) % 1
    colours = [colorsys.hsv_to_rgb(hue, 0.65, 0.95) for hue in hues]
    return ClassTable(
        "numbered",
        tuple(names),
        np.rint(255 * np.array(colours)).astype(np.uint8),
        label_to_train,
    )
