"""Before the work: whether it can succeed, and what it will cost."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from clients.vault.assignment import Assignment
from clients.vault.drafts import pictures
from clients.vault.keyring import Vault
from clients.vault.node_directory import CONTENT, check
from clients.vault.sealing import sealed_view
from clients.vault.shards import outlook, shards_of
from clients.vault.wording import size_text
from fl_ppseg.config import ArmConfig
from fl_ppseg.errors import InputError, RunError
from fl_ppseg.files import Progress, check_writable
from fl_ppseg.keys import SubKey

NAMED: Final = 10
"""Broken scenes that a line has room for."""


class Estimate(NamedTuple):
    """What a hand-over will cost."""

    num_scenes: int
    """Images to encrypt, counted once a seed."""
    num_bytes: int
    """Space that it takes on disk."""
    seconds: float


def lie_apart(one: Path, other: Path) -> bool:
    """Whether neither of two folders lies in the other."""
    places = one.resolve(), other.resolve()
    return not any(a.is_relative_to(b) for a, b in (places, places[::-1]))


def check_out(vault: Vault, node: Path, city: str) -> None:
    """Find out before the work whether the node folder of a city can be where it is to be.

    Raises:
        InputError: It lies with the keys, holds something else already, somebody else could replace
            it, or nothing can be written there.
    """
    if not lie_apart(vault.folder, node):
        raise InputError(
            f"{node}: vault and node folder lie in one another, but keys must not lie with what is "
            "handed over; choose another --out"
        )
    check(node, city)
    for place in (node, *(node / kind for kind in CONTENT)):
        check_writable(place)


def check_scenes(
    vault: Vault, jobs: Sequence[Assignment], progress: Progress = lambda done, total: None
) -> None:
    """Look at all images and label maps before the long work, if any of them are to be encrypted.

    None is left out on its own: which images a city trains on would depend on the day's disk.

    Args:
        vault: The owner's vault.
        jobs: Of `assignments`: the same scenes for each seed.
        progress: Called with (scenes looked at, scenes in all).

    Raises:
        InputError: Names what cannot be read, the first file with the reason.
    """
    if not any(shards_of(vault, job)[1] for job in jobs):
        return
    broken: dict[str, str] = {}
    scenes = jobs[0].train + jobs[0].heldout
    for number, scene in enumerate(scenes):
        progress(number, len(scenes))
        try:
            scene.check()
        except InputError as error:
            broken[scene.stem] = str(error)
    if broken:
        first, *others = broken
        names = ", ".join([*others[:NAMED], *["..."] * (len(others) > NAMED)])
        more = f"; {len(others)} more like it: {names}" if others else ""
        raise InputError(f"{broken[first]}{more}")


def estimate(vault: Vault, jobs: Sequence[Assignment], num_workers: int) -> Estimate:
    """Disk and time of what is left to do; the time is that of a first image under throw-away keys.

    Raises:
        InputError: For the first image, or a label map that cannot be read.
    """
    left = [(job, outlook(vault, job)) for job in jobs]
    left = [(job, found) for job, found in left if found.num_scenes]
    seconds = 0.0
    if left:
        job, first = left[0]
        seconds = _measured(job, first.protections)
    num_scenes = sum(found.num_scenes for _, found in left)
    num_bytes = sum(found.num_bytes for _, found in left)
    return Estimate(num_scenes, num_bytes, seconds * num_scenes / max(1, num_workers))


def check_space(node: Path, num_bytes: int) -> int:
    """Free bytes on the disk of a node folder that may not be there yet.

    Raises:
        RunError: They are too few.
    """
    there = next(folder for folder in (node, *node.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < num_bytes:
        raise RunError(
            f"no space left on the disk of {node}: {size_text(num_bytes)} are wanted and "
            f"{size_text(free)} free; free some, or choose another --out"
        )
    return free


def _measured(job: Assignment, protections: Sequence[ArmConfig]) -> float:
    """Seconds for the first image under throw-away keys; nothing is stored."""
    start = time.perf_counter()
    for view, (image, _) in enumerate(pictures(job)[0].views()):
        for protection in protections:
            sealed_view(image, protection, job.block_size, lambda _: SubKey.generate(), view)
    return time.perf_counter() - start
