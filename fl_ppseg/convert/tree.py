"""Writes the tree of a plan in Cityscapes layout: atomic and deterministic to the byte."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.convert.draft import draft_folder, require_free, write
from fl_ppseg.convert.masks import MOST
from fl_ppseg.convert.pictures import Converted, converted
from fl_ppseg.convert.plan import Item, Plan, Split
from fl_ppseg.convert.scaling import Scaling
from fl_ppseg.data.classes import IGNORE_INDEX
from fl_ppseg.data.tree_layout import IMAGES, LABEL_SUFFIX, LABELS, bounded, counted
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import Progress, make_folders

README, TABLE = "README.md", "classes.yaml"


@dataclass
class Found:
    """Findings on all photographs and masks of a plan."""

    num_turned: int = 0
    """Photographs that their EXIF orientation turned."""
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    """Pixels of each labelId."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Unknown values of masks -> pixels."""
    unknown_masks: list[str] = field(default_factory=list)
    """Masks with unknown values."""
    broken: list[str] = field(default_factory=list)
    """Why files cannot be used."""
    photographs: dict[str, tuple[Split, Item]] = field(default_factory=dict)
    """Digest of a photograph's pixels -> the first that has them."""


def convert(
    plan: Plan,
    out: Path,
    scaling: Scaling,
    num_workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> Found:
    """Write the tree of a plan.

    Args:
        plan: What goes where.
        out: Folder to be made.
        scaling: Of all pictures.
        num_workers: Threads; the bytes do not depend on their number.
        progress: Called with (photographs done, photographs in all).

    Raises:
        InputError: Files are damaged, or `out` exists; nothing is made then.
    """
    require_free(out)
    scaling.checked()
    found = Found()
    with draft_folder(out) as draft:
        for folder in {path.parent for split, item in plan.items for path in _paths(split, item)}:
            make_folders(draft / folder)
        _write_pictures(plan, draft, scaling, num_workers, progress, found)
        _refuse(plan, found)
        if plan.table is not None:
            write(draft / TABLE, plan.table)
        write(draft / README, "\n".join(readme(plan, scaling, found)).encode())
    return found


def notes(plan: Plan, found: Found) -> list[str]:
    """Notes on a tree, one sentence each."""
    scored = plan.coding.scored.label_to_train != IGNORE_INDEX
    share = found.counts[~scored].sum() / max(1, found.counts.sum())
    others = [str(k) for k in np.flatnonzero(found.counts) if not scored[k]]
    lines = []
    if others:
        lines.append(
            f"{100 * share:.1f} % of all pixels are of no class and are not scored (labelIds "
            f"{bounded(others)})"
        )
    if found.num_turned:
        lines.append(
            f"{counted(found.num_turned, 'photograph')} turned as EXIF says, as viewers show them"
        )
    return lines


def readme(plan: Plan, scaling: Scaling, found: Found) -> Iterator[str]:
    """Lines of the README that lies in a tree."""
    yield f"# {plan.source}: a tree in Cityscapes layout"
    yield "Made by `python -m fl_ppseg.convert`; photographs are written anew, without EXIF data."
    yield ""
    yield from (f"- {line}" for line in plan.notice)
    yield f"- Classes: {plan.coding.scored.name} (`data.classes`: {plan.classes})."
    yield f"- Size: {_size(scaling)}."
    yield from (f"- {line[0].upper()}{line[1:]}." for line in notes(plan, found))
    yield "- According to their names, no drive and no place of val is in train."
    yield ""
    yield "| split | place | of | photographs |"
    yield "|---|---|---|---|"
    sizes = Counter((split, item.place, item.area) for split, item in plan.items)
    for (split, place, area), number in sorted(sizes.items()):
        yield f"| {split} | {place} | {area} | {number} |"
    yield ""


def _size(scaling: Scaling) -> str:
    if scaling.size is not None:
        return "every picture {}x{} (height x width)".format(*scaling.size)
    if scaling.longest_side is not None:
        return f"longest side at most {scaling.longest_side}"
    return "as they were"


def _write_pictures(
    plan: Plan, draft: Path, scaling: Scaling, num_workers: int, progress: Progress, found: Found
) -> None:
    """Write all usable pictures, and note the others."""
    items = plan.items

    def work(number: int) -> Converted | str:
        split, item = items[number]
        try:
            done = converted(item, plan.coding, scaling)
        except InputError as error:
            return str(error)
        image, label_map = _paths(split, item, done.kind)
        write(draft / image, done.image)
        write(draft / label_map, done.label_map)
        return done._replace(image=b"", label_map=b"")

    pool = ThreadPoolExecutor(num_workers)
    try:
        for number, done in enumerate(pool.map(work, range(len(items)))):
            progress(number, len(items))
            _note(found, *items[number], done)
    finally:
        pool.shutdown(cancel_futures=True)
    progress(len(items), len(items))


def _note(found: Found, split: Split, item: Item, done: Converted | str) -> None:
    if isinstance(done, str):
        found.broken.append(done)
        return
    found.num_turned += done.is_turned
    found.counts += done.counts
    if done.unknown:
        found.unknown += done.unknown
        found.unknown_masks.append(item.mask.name)
    other_split, other = found.photographs.setdefault(done.content, (split, item))
    if other_split != split:
        found.broken.append(
            f"{item.image}: the same photograph as {other.image}, but one would be scored "
            "and one trained on; remove one"
        )


def _refuse(plan: Plan, found: Found) -> None:
    """Refuse the whole tree if any file cannot be used.

    Raises:
        InputError: With the files that cannot be used.
    """
    if found.broken:
        others = len(found.broken) - 1
        more = f"; and {others} more like it" if others else ""
        raise InputError(f"{found.broken[0]}{more}")
    if found.unknown:
        kind = "colour" if plan.coding.palette is None else "value"
        met = [f"{value} ({pixels:,} pixels)" for value, pixels in found.unknown.most_common(MOST)]
        number = f"{counted(len(found.unknown), kind)}{' or more' * (len(found.unknown) >= MOST)}"
        masks = counted(len(found.unknown_masks), "mask")
        raise InputError(
            f"{number} in {masks} to which {plan.coding.scored.name} gives no meaning: "
            f"{', '.join(met)}; in {bounded(found.unknown_masks, 3)}"
        )


def _paths(split: Split, item: Item, kind: str = "png") -> tuple[Path, Path]:
    """Image and label map, from the root of a tree."""
    place = Path(split) / item.place
    return (
        IMAGES / place / f"{item.stem}_leftImg8bit.{kind}",
        LABELS / place / f"{item.stem}{LABEL_SUFFIX}",
    )
