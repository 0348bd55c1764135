"""Class tables: which label ids are scored, under which trainId, in which colour.

A table is a YAML file; those in ``class_tables/`` go by name, Cityscapes' 19 classes by default.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fl_ppseg.config.documents import read_yaml
from fl_ppseg.config.loading import validate
from fl_ppseg.system.errors import InputError

IGNORE_INDEX = 255
"""trainId of pixels that are neither trained on nor scored."""

MAX_BYTES = 2**17
"""Of a table file; one of 255 classes takes a quarter of it."""


def _printable(name: str) -> str:
    """Names stand in tables, pages and logs."""
    if not name.isprintable() or name != name.strip():
        raise ValueError("expected printable characters, without blanks at the ends")
    return name


_BUILT_IN = Path(__file__).with_name("class_tables")
_Byte = Annotated[int, Field(ge=0, le=255)]
_TrainId = Annotated[int, Field(ge=0, lt=IGNORE_INDEX)]
_Name = Annotated[str, Field(min_length=1, max_length=60), AfterValidator(_printable)]


@dataclass(frozen=True, eq=False)
class ClassTable:
    """The classes of a data set, in trainId order.

    Attributes:
        name: Name of the table.
        names: Class names; the position is the trainId.
        colours: (num_classes, 3) uint8, RGB of each class.
        label_to_train: (256,) uint8, labelId -> trainId, or 255 where ignored.
    """

    name: str
    names: tuple[str, ...]
    colours: NDArray[np.uint8]
    label_to_train: NDArray[np.uint8]

    @property
    def num_classes(self) -> int:
        """Number of classes that are scored."""
        return len(self.names)

    def encode(self, label_ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(...) uint8 labelIds -> (...) uint8 trainIds, 255 where ignored."""
        return self.label_to_train[label_ids]

    @property
    def train_to_label(self) -> NDArray[np.uint8]:
        """(256,) uint8, trainId -> the smallest labelId that means it; what is not a trainId -> 0.

        >>> load_class_table("cityscapes").train_to_label[[0, 1, 18, IGNORE_INDEX]].tolist()
        [7, 8, 33, 0]
        """
        label_ids = np.arange(256, dtype=np.uint8)[::-1]
        smallest = np.zeros(256, dtype=np.uint8)
        smallest[self.label_to_train[label_ids]] = label_ids  # of several the last one stays
        return smallest

    def colourise(self, train_ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W) uint8 trainIds -> (H, W, 3) uint8 RGB; pixels of no class are black."""
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[: self.num_classes] = self.colours
        return palette[train_ids]


class ClassEntry(BaseModel):
    """A class as a table's file has it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    name: _Name
    train_id: _TrainId
    label_ids: Annotated[list[_Byte], Field(min_length=1)]
    colour: Annotated[list[_Byte], Field(min_length=3, max_length=3)]


class TableFile(BaseModel):
    """A class table as its file has it, before its ids are checked."""

    model_config = ConfigDict(strict=True, extra="forbid")
    name: _Name
    classes: Annotated[list[ClassEntry], Field(min_length=1)]


def built_in_tables() -> tuple[str, ...]:
    """Names of the tables that come with the package, sorted.

    >>> built_in_tables()
    ('camvid', 'cityscapes', 'cityscapes-train-ids', 'labelme-facade')
    """
    return tuple(sorted(file.stem for file in _BUILT_IN.glob("*.yaml")))


def load_class_table(name_or_path: str | Path) -> ClassTable:
    """Reads a class table.

    Args:
        name_or_path: The name of a built-in table, or the path of a YAML file that holds ``name``
            and ``classes``, a list of ``{name, train_id, label_ids, colour}``. The trainIds are
            0, 1, 2, ... in any order; a labelId that no class lists is ignored.

    Raises:
        InputError: The table does not exist, or the file breaks the schema.
    """
    path = _locate(name_or_path)
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: expected a class table of at most {MAX_BYTES} bytes, got more")
    return table_of(validate(TableFile, read_yaml(path), str(path)), path)


def table_of(file: TableFile, source: Path) -> ClassTable:
    """The class table that a file holds.

    Args:
        file: What it says.
        source: Its path, for messages.

    Raises:
        InputError: Its trainIds leave gaps, or something is listed twice.
    """
    _check_ids(file.classes, source)
    return _build(file)


def entries_of(table: ClassTable) -> TableFile:
    """What a file of a class table says, the inverse of :func:`table_of`."""
    entries = [
        ClassEntry(
            name=name,
            train_id=train_id,
            label_ids=np.flatnonzero(table.label_to_train == train_id).tolist(),
            colour=table.colours[train_id].tolist(),
        )
        for train_id, name in enumerate(table.names)
    ]
    return TableFile(name=table.name, classes=entries)


def _locate(name_or_path: str | Path) -> Path:
    if name_or_path in built_in_tables():
        return _BUILT_IN / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if not path.exists():
        known = ", ".join(built_in_tables())
        raise InputError(f"{path}: unknown class table; expected one of {known}, or a YAML file")
    return path


def _check_ids(classes: list[ClassEntry], path: Path) -> None:
    train_ids = [entry.train_id for entry in classes]
    columns: dict[str, list[int] | list[str]] = {
        "train_id": train_ids,
        "name": [entry.name for entry in classes],
        "label_ids": [label_id for entry in classes for label_id in entry.label_ids],
    }
    for column, values in columns.items():
        if (repeated := _first_repeated(values)) is not None:
            raise InputError(f"{path}: {column} {repeated!r} is listed twice; each may occur once")
    if len(classes) == 1:
        raise InputError(
            f"{path}: expected two classes or more, got only {classes[0].name!r}; list "
            "the background as a class of its own, with the labelIds that it has"
        )
    if len(columns["label_ids"]) == 256:
        raise InputError(
            f"{path}: all of the 256 labelIds are of a class; leave one out for pixels of none"
        )
    if max(train_ids) >= len(train_ids):
        raise InputError(
            f"{path}: train_id {max(train_ids)} among {len(train_ids)} classes; "
            f"number them 0 to {len(train_ids) - 1} without gaps"
        )


def _first_repeated(values: list[int] | list[str]) -> int | str | None:
    counts: Counter[int | str] = Counter(values)
    return next((value for value, count in counts.items() if count > 1), None)


def _build(table: TableFile) -> ClassTable:
    ordered = sorted(table.classes, key=lambda entry: entry.train_id)
    label_to_train = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    for entry in ordered:
        label_to_train[entry.label_ids] = entry.train_id
    colours = np.array([entry.colour for entry in ordered], dtype=np.uint8)
    for array in (colours, label_to_train):
        array.setflags(write=False)
    names = tuple(entry.name for entry in ordered)
    return ClassTable(table.name, names, colours, label_to_train)
