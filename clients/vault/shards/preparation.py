"""Encrypts one owner's images for all arms at once: drafts, tasks, finished shards."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from clients.vault.assignment import Assignment, Prepared, shard_digest, stored_as
from clients.vault.keys.keyring import Vault, ensure_shared_subkey
from clients.vault.shards.drafts import (
    Work,
    abandon_unless_finished,
    begin_or_resume,
    expected_manifest,
    find_draft,
    finish_shard,
    flaw,
    pictures,
)
from clients.vault.shards.encrypting import SceneTask, encrypt_scene
from clients.vault.shards.private_embedding import prepare_private
from clients.vault.simulations.inventory import mark_simulated
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import Progress
from fl_ppseg.system.spans import span
from fl_ppseg.system.workers import work_at_once

SYNC_SECONDS: Final = 1.0
"""Seconds of work that a loss of power may undo."""


class RemainingWork(NamedTuple):
    """What is left to encrypt."""

    protections: tuple[ArmConfig, ...]
    """Of the shards that are missing."""
    num_scenes: int
    """Scenes that at least one of them lacks."""
    num_bytes: int
    """Disk space that is not reserved yet."""


def prepare_shards(
    assignment: Assignment, num_workers: int = 1, progress: Progress | None = None
) -> dict[str, Prepared]:
    """Encrypt one owner's images for all arms at once; intact shards are kept.

    The next equal call resumes an interrupted one, even after a loss of power. After an error
    nothing of the unfinished shards is left, but finished drafts of rounds.

    Args:
        assignment: Images, sizes and protections.
        num_workers: Processes that encrypt; 1: this one.
        progress: Called with (scenes done, scenes in total) if there is something to encrypt.

    Returns:
        What the node gets for each arm; arms with the same protection share a shard.

    Raises:
        InputError: For an image or label map that cannot be read or encrypted, a cipher to which
            no embedding can be adapted, or a vault that is open to others.
    """
    vault = Vault(assignment.vault)
    with span("encryption"), vault.lock():
        mark_simulated(vault.folder)
        return prepare_locked(vault, assignment, num_workers, progress)


def prepare_locked(
    vault: Vault, job: Assignment, num_workers: int = 1, progress: Progress | None = None
) -> dict[str, Prepared]:
    """`prepare_shards` for a caller that holds the vault's lock."""
    digests = complete(vault, job, num_workers, progress)
    rounds = job.fresh.place if job.fresh is not None and job.train else None
    return {
        arm: Prepared(job.shard_folder(digest), prepare_private(vault, job, arm, digest), rounds)
        for arm, digest in digests.items()
    }


def prepare_round(assignment: Assignment) -> None:
    """Encrypt the fresh views of a round for all arms at once; intact shards are kept.

    They are the same whenever they are made, but for disposable keys.

    Args:
        assignment: Of one owner and round.

    Raises:
        InputError: As `prepare_shards`, or what is made ahead is missing.
    """
    vault = Vault(assignment.vault)
    with span("encryption"), vault.lock():
        complete(vault, assignment)


def complete(
    vault: Vault, job: Assignment, num_workers: int = 1, progress: Progress | None = None
) -> dict[str, str]:
    """Encrypt what is missing, for a caller that holds the vault's lock.

    Returns:
        The digest of each arm's shard.

    Raises:
        InputError: As `prepare_shards`.
    """
    digests, missing = plan_shards(vault, job)
    if missing:
        _encrypt(vault, job, missing, num_workers, progress or (lambda done, total: None))
    return digests


def plan_shards(vault: Vault, job: Assignment) -> tuple[dict[str, str], dict[str, ArmConfig]]:
    """The digest of each arm's shard, and the protections of the missing ones by digest."""
    stored = {arm: stored_as(protection) for arm, protection in job.protections.items()}
    digests = shard_digests(vault, job)
    missing = {
        digest: stored[arm]
        for arm, digest in digests.items()
        if flaw(vault, job, digest, stored[arm])
    }
    return digests, missing


def shard_digests(vault: Vault, job: Assignment) -> dict[str, str]:
    """The digest of each arm's shard, whether it is there or not."""
    stored = {arm: stored_as(protection) for arm, protection in job.protections.items()}
    return {arm: shard_digest(job, p, _shared_key(vault, p)) for arm, p in stored.items()}


def remaining_work(vault: Vault, job: Assignment) -> RemainingWork:
    """What is left to encrypt for one assignment.

    Raises:
        InputError: For a label map that cannot be read, or a vault that is open to others.
    """
    _, missing = plan_shards(vault, job)
    num_bytes, scenes = 0, set[int]()
    for digest, protection in missing.items():
        manifest = expected_manifest(job, digest, protection)
        draft = find_draft(vault, job, manifest, protection)
        scenes.update(draft.missing if draft else range(len(job.train) + len(job.scored)))
        shapes = manifest.shapes(job.data.view_size).values()
        num_bytes += 0 if draft else sum(map(math.prod, shapes))
    return RemainingWork(tuple(missing.values()), len(scenes), num_bytes)


def _encrypt(
    vault: Vault,
    job: Assignment,
    missing: Mapping[str, ArmConfig],
    num_workers: int,
    progress: Progress,
) -> None:
    try:
        works = [begin_or_resume(vault, job, digest, p) for digest, p in missing.items()]
        total = len(job.train) + len(job.scored)
        for left in _encrypt_and_mark(list(_tasks(job, works)), works, num_workers):
            progress(total - left, total)
        for digest, work in zip(missing, works, strict=True):
            finish_shard(vault, job, digest, work)
    except (InputError, OSError):
        for digest in missing:
            abandon_unless_finished(vault, job.draft_folder(digest))
        raise


def _tasks(job: Assignment, works: Sequence[Work]) -> Iterator[SceneTask]:
    """A task for each scene that some shard lacks."""
    lacking = [(work, set(work.draft.missing)) for work in works]
    for number, picture in enumerate(pictures(job)):
        targets = tuple(work.target(picture) for work, numbers in lacking if number in numbers)
        if targets:
            yield SceneTask(job.vault, number, picture, job.block_size, targets)


def _encrypt_and_mark(
    tasks: Sequence[SceneTask], works: Sequence[Work], num_workers: int
) -> Iterator[int]:
    """Do all tasks, and mark them as done once they are on disk; yields how many are left."""
    left, unsaved, saved = len(tasks), [], time.monotonic()
    try:
        yield left
        for number in _encrypt_scenes(tasks, num_workers):
            unsaved.append(number)
            left -= 1
            if time.monotonic() - saved >= SYNC_SECONDS:
                _mark_done(works, unsaved)
                saved = time.monotonic()
            yield left
    finally:
        _mark_done(works, unsaved)


def _mark_done(works: Sequence[Work], numbers: list[int]) -> None:
    for work in works:
        work.draft.mark(numbers)
    numbers.clear()


def _encrypt_scenes(tasks: Sequence[SceneTask], num_workers: int) -> Iterator[int]:
    """Encrypt the scenes; yields their numbers as they are done."""
    if num_workers == 1:
        for task in tasks:
            encrypt_scene(task)
            yield task.number
    else:
        for index, _ in work_at_once(encrypt_scene, tasks, num_workers, "encrypting"):
            yield tasks[index].number


def _shared_key(vault: Vault, protection: ArmConfig) -> str | None:
    """Fingerprint of the key that this owner shares with others; None if it shares none."""
    if protection.key_mode != "shared":
        return None
    return ensure_shared_subkey(vault.folder.parent, protection).fingerprint
