"""The plan of a tree: the target of each photograph, checked by names before any is read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fl_ppseg.config.client_names import folded, folder_name, is_file_name
from fl_ppseg.convert.masks import Coding
from fl_ppseg.data.tree_layout import LABEL_SUFFIX, bounded
from fl_ppseg.system.errors import InputError

Split = Literal["train", "val"]


class Item(NamedTuple):
    """A photograph with its mask, and their target."""

    image: Path
    mask: Path
    stem: str
    """Name in the tree, without suffix."""
    place: str
    """Folder in the tree: a city, or a run of frames."""
    area: str
    """Area of the place (a drive, a town); training and validation share none."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A tree to be made.

    Attributes:
        source: Title of the data set, for the tree's README.
        notice: Source and licence, one line each.
        classes: Name of a built-in class table, or `classes.yaml` in the tree.
        table: Content of that file; None for a built-in table.
        coding: Values of masks.
        splits: Split -> items, in the order in which they are written.
    """

    source: str
    notice: tuple[str, ...]
    classes: str
    table: bytes | None
    coding: Coding
    splits: Mapping[Split, tuple[Item, ...]]

    @property
    def items(self) -> list[tuple[Split, Item]]:
        """All of them."""
        return [(split, item) for split, items in self.splits.items() for item in items]


def divide(items: Sequence[Item], is_val: Callable[[Item], bool]) -> dict[Split, tuple[Item, ...]]:
    """Divide items into two splits that share no area.

    Raises:
        InputError: They share an area, one is empty, or names are unsafe or collide.
    """
    _check_names(items)
    splits: dict[Split, tuple[Item, ...]] = {
        "train": tuple(item for item in items if not is_val(item)),
        "val": tuple(item for item in items if is_val(item)),
    }
    for split, own in splits.items():
        if not own:
            there = bounded(sorted({item.place for item in items}))
            raise InputError(f"no photograph is left for {split}; choose other --val of {there}")
    _check_apart(splits["train"], splits["val"])
    return splits


def chosen(requested: Iterable[str], there: Iterable[str], what: str) -> frozenset[str]:
    """Match requested names to existing ones, ignoring case.

    Raises:
        InputError: One of them does not exist.
    """
    known = {folded(name): name for name in there}
    names = {name: known.get(folded(name)) for name in requested}
    if absent := [name for name, found in names.items() if found is None]:
        raise InputError(
            f"--val {absent[0]!a}: no such {what}; there are {bounded(sorted(known.values()), 30)}"
        )
    return frozenset(found for found in names.values() if found is not None)


def _check_names(items: Sequence[Item]) -> None:
    """Refuse names that are hidden, unsafe, or equal up to case and Unicode form."""
    places: dict[str, str] = {}
    stems: dict[tuple[str, str], Item] = {}
    for item in items:
        place = folder_name(item.place)
        if (other := places.setdefault(folded(place), place)) != place:
            raise InputError(
                f"places {other} and {place} differ by capitals or Unicode forms only; are they "
                "one? rename or merge them, for some disks take them for one folder"
            )
        if not is_file_name(item.stem + LABEL_SUFFIX):
            raise InputError(
                f"{item.image}: its name is too long or not plain for a tree; rename the file"
            )
        first = stems.setdefault((place, folded(item.stem)), item)
        if first is not item:
            raise InputError(
                f"{item.image} and {first.image}: both would be {place}/{item.stem} in the tree "
                "(capitals do not count); rename one of them"
            )


def _check_apart(train: Sequence[Item], val: Sequence[Item]) -> None:
    """Refuse val places in an area of training."""
    of_training = {folded(item.area): item for item in train}
    for item in val:
        if (other := of_training.get(folded(item.area))) is not None:
            places = {i.place for i in (*train, *val) if folded(i.area) == folded(item.area)}
            raise InputError(
                f"val place {item.place} and training place {other.place} are both of "
                f"{item.area}, and validation may share nothing with training; name all of it "
                f"({bounded(sorted(places), 30)}) as --val, or none"
            )
