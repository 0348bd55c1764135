"""From the values of masks, colours or ids, to the labelIds of a class table."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.data.classes import IGNORE_INDEX, ClassTable
from fl_ppseg.data.image_files import opened, orientation
from fl_ppseg.data.label_maps import decode_label_ids
from fl_ppseg.system.errors import InputError

Colour = tuple[int, int, int]
MOST: Final = 10
"""Most unknown values of a mask that are kept, by frequency; a photograph given as a mask has
thousands."""


class Decoded(NamedTuple):
    """A decoded mask."""

    label_ids: NDArray[np.uint8]
    """(H, W)."""
    unknown: Counter[str]
    """Unknown values -> pixels, the most frequent ones."""


@dataclass(frozen=True, eq=False)
class Coding:
    """Values of masks and their labelIds.

    Attributes:
        values: (n,) int64, ascending: ids, or colours as 0xRRGGBB.
        label_ids: (n,) uint8, the labelId of each.
        palette: The class table of a palette of ids; None: masks hold colours.
        scored: The table that says which labelIds belong to a class.
    """

    values: NDArray[np.int64]
    label_ids: NDArray[np.uint8]
    palette: ClassTable | None
    scored: ClassTable

    @classmethod
    def of_ids(cls, meaning: Mapping[int, int], palette: ClassTable, scored: ClassTable) -> Self:
        """Masks of one channel: value -> labelId."""
        return cls(*_columns(meaning), palette, scored)

    @classmethod
    def of_colours(cls, meaning: Mapping[Colour, int], scored: ClassTable) -> Self:
        """Masks of colours: RGB -> labelId."""
        return cls(*_columns({_packed(c): k for c, k in meaning.items()}), None, scored)

    def decode(self, data: bytes, path: Path) -> Decoded:
        """PNG -> (H, W) uint8 labelIds, and the unknown values.

        Raises:
            InputError: It is damaged, or not a mask of this kind.
        """
        values = self._values(data, path)
        place = np.searchsorted(self.values, values).clip(max=len(self.values) - 1)
        is_known = self.values[place] == values
        met, counts = np.unique(values[~is_known], return_counts=True)
        most = np.argsort(-counts, kind="stable")[:MOST]
        return Decoded(
            self.label_ids[place],
            Counter({self._shown(int(met[k])): int(counts[k]) for k in most}),
        )

    def _values(self, data: bytes, path: Path) -> NDArray[np.int64]:
        """(H, W)."""
        if self.palette is not None:
            return decode_label_ids(data, path, self.palette).astype(np.int64)
        with opened(data, path, "mask") as picture:
            if picture.format != "PNG" or picture.mode not in ("RGB", "RGBA", "P"):
                raise InputError(
                    f"{path}: {picture.format} of mode {picture.mode}, but colours are expected as "
                    "a PNG of RGB or a palette (JPEG blurs them)"
                )
            if orientation(data, picture) != 1:
                raise InputError(
                    f"{path}: a mask that its EXIF orientation turns; save it upright without it"
                )
            rgb = np.asarray(picture.convert("RGB")).astype(np.int64)
        return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]

    def _shown(self, value: int) -> str:
        return str(value) if self.palette is not None else f"{value:06x}"


def table_colours(classes: ClassTable, ignored: Iterable[Colour]) -> dict[Colour, int]:
    """Colour -> labelId, of the classes of a table and of ignored colours.

    Raises:
        InputError: Two classes have the same colour, or a class has an ignored one.
    """
    meaning: dict[Colour, int] = {}
    for name, colour, label_id in zip(
        classes.names, classes.colours.tolist(), classes.train_to_label.tolist(), strict=False
    ):
        red, green, blue = colour
        if (red, green, blue) in meaning:
            raise InputError(
                f"class table {classes.name}: {name} has the colour {_hex(colour)} of another "
                "class, so masks of colours cannot tell them apart"
            )
        meaning[red, green, blue] = label_id
    for colour in ignored:
        if colour in meaning:
            raise InputError(f"--ignore {_hex(colour)}: is the colour of a class")
    return meaning | dict.fromkeys(ignored, no_class(classes))


def no_class(classes: ClassTable) -> int:
    """The labelId for pixels of no class: 0 if it is free, as in Cityscapes."""
    return int(np.flatnonzero(classes.label_to_train == IGNORE_INDEX)[0])


def _columns(meaning: Mapping[int, int]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    values = sorted(meaning)
    return np.array(values, np.int64), np.array([meaning[v] for v in values], np.uint8)


def _packed(colour: Colour) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _hex(colour: Iterable[int]) -> str:
    return "".join(f"{value:02x}" for value in colour)
