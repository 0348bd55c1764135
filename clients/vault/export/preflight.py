"""Preflight checks of an export: whether it can succeed, and what it will cost."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from clients.vault.assignment import Assignment
from clients.vault.keys.keyring import Vault
from clients.vault.node_folders.directory import CONTENT, check
from clients.vault.shards.drafts import pictures
from clients.vault.shards.preparation import remaining_work
from clients.vault.wording import size_text
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.crypto.arm_images import encrypted
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.preflight.cache import ScanCache
from fl_ppseg.data.preflight.scan import Scan, scan_data
from fl_ppseg.system.errors import RunError
from fl_ppseg.system.files import Progress, check_writable
from fl_ppseg.system.places import check_apart


class Estimate(NamedTuple):
    """What an export will cost."""

    num_scenes: int
    """Images to encrypt, counted once per seed."""
    num_bytes: int
    """Space needed on disk."""
    seconds: float


def check_output(vault: Vault, node: Path, client: str) -> None:
    """Check that a client's node folder can be written at a path.

    Raises:
        InputError: It lies inside the vault or around it, holds something else, somebody else
            could replace it, or it cannot be written.
    """
    check_apart(vault.folder, node, "--out")
    check(node, client)
    for place in (node, *(node / kind for kind in CONTENT)):
        check_writable(place)


def scan_images(
    jobs: Mapping[int, Assignment], num_workers: int, progress: Progress = lambda done, total: None
) -> tuple[dict[int, Assignment], Scan]:
    """Read all images and label maps once, before the long work.

    Args:
        jobs: Of `assignments`: the same scenes for each seed.
        num_workers: Threads.
        progress: Called with (scenes read, scenes in total).

    Returns:
        The jobs, their scenes identified by content, and the statistics of the scenes.

    Raises:
        InputError: Files cannot be read; names the first one and the reason.
    """
    first = next(iter(jobs.values()))
    scenes = first.train + first.heldout
    splits = {scenes[0].split: {first.client: scenes}}
    found = scan_data(splits, num_workers, progress, ScanCache.of_table(scenes[0].classes))
    train, heldout = found.scenes[: len(first.train)], found.scenes[len(first.train) :]
    named = {seed: replace(job, train=train, heldout=heldout) for seed, job in jobs.items()}
    return named, found


def estimate(vault: Vault, jobs: Sequence[Assignment], num_workers: int) -> Estimate:
    """Disk space and time of the remaining work; the time is measured on one image.

    Raises:
        InputError: For the first image, or a label map that cannot be read.
    """
    left = [(job, remaining_work(vault, job)) for job in jobs]
    left = [(job, found) for job, found in left if found.num_scenes]
    seconds = 0.0
    if left:
        job, first = left[0]
        seconds = _measure(job, first.protections)
    num_scenes = sum(found.num_scenes for _, found in left)
    num_bytes = sum(found.num_bytes for _, found in left)
    return Estimate(num_scenes, num_bytes, seconds * num_scenes / max(1, num_workers))


def check_space(node: Path, num_bytes: int) -> int:
    """Free bytes on the disk of a node folder, which need not exist yet.

    Raises:
        RunError: They are too few.
    """
    there = next(folder for folder in (node, *node.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < num_bytes:
        raise RunError(
            f"not enough space on the disk of {node}: {size_text(num_bytes)} needed, "
            f"{size_text(free)} free; free some, or choose another --out"
        )
    return free


def _measure(job: Assignment, protections: Sequence[ArmConfig]) -> float:
    """Seconds to encrypt the first image with ephemeral keys; nothing is stored."""
    start = time.perf_counter()
    for image, _ in pictures(job)[0].views():
        for protection in protections:
            encrypted(image, SubKey.generate(), protection, job.block_size)
    return time.perf_counter() - start
