"""Drafts of shards: begun once their salts are on disk, resumed, finished, or abandoned."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from clients.vault.assignment import Assignment, folder_mode, shard_digest
from clients.vault.keys.keyring import Vault
from clients.vault.keys.record import CLIENT, Record, view_name
from clients.vault.layout import DRAFTS
from clients.vault.node_folders.directory import grant
from clients.vault.node_folders.exports import record_mismatch, record_shard
from clients.vault.shards.encrypting import Picture, Target, view_digest
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.cipher_versions import versions_of
from fl_ppseg.crypto.arm_images import check_windows
from fl_ppseg.crypto.keys import Part
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.manifest import SCHEMA, Manifest, read_manifest
from fl_ppseg.data.pixel_order import cells_size
from fl_ppseg.data.shard import open_shard
from fl_ppseg.data.shard_draft import ShardDraft, has_moved, record_of, remove_draft
from fl_ppseg.data.views import scored_size
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError

logger = logging.getLogger(__name__)


class Work(NamedTuple):
    """A shard that is being encrypted."""

    draft: ShardDraft
    protection: ArmConfig
    record: Record | None

    def target(self, picture: Picture) -> Target:
        """The shard as the target of one scene."""
        scene_id, views = picture.scene.scene_id, picture.numbers
        record = self.record and self.record.of_scene(picture.part, scene_id, views)
        return Target(self.draft.place, self.protection, record)


def begin_or_resume(vault: Vault, job: Assignment, digest: str, protection: ArmConfig) -> Work:
    """Resume the draft that an interrupted call left, or begin one; its record is saved first.

    Raises:
        InputError: For an image or label map that cannot be read, or a damaged vault.
        OSError: The disk is full.
    """
    manifest = expected_manifest(job, digest, protection)
    place, size = job.draft_folder(digest), job.data.view_size
    if job.shard_folder(digest).exists():
        logger.warning("%s; encrypting it again", flaw(vault, job, digest, protection))
    draft = find_draft(vault, job, manifest, protection)
    if draft is not None:
        name = draft.manifest.record
        return Work(draft, protection, None if name is None else vault.find(name)[1])
    abandon(vault, place)
    if not _has_record(protection):
        return Work(ShardDraft.begin(place, manifest, size), protection, None)
    if job.round:
        record = _shared_record(vault, job, protection)
        manifest = replace(manifest, record=record.name)
        return Work(ShardDraft.begin(place, manifest, size), protection, record)
    record = Record.new(protection, job.train, job.heldout, job.views, _samples(job))
    draft = ShardDraft.begin(place, replace(manifest, record=record.name), size)
    try:  # from here on the draft names the record: both are kept, or both are removed
        vault.save_record(record)
    except OSError:
        abandon(vault, place)
        raise
    return Work(draft, protection, record)


def finish_shard(vault: Vault, job: Assignment, digest: str, work: Work) -> None:
    """Finish the shard of a draft and move it to its folder; an existing one is replaced.

    A round that cannot be moved stays a finished draft: it is moved later, for disposable keys
    make no other of the same views.

    Raises:
        InputError: Somebody else could replace the folder.
        OSError: It cannot be moved.
    """
    shard, target = work.draft.finish(), job.shard_folder(digest)
    if job.out is not None:
        record_shard(vault.folder, digest, work.draft.manifest.record)
    try:
        _move(shard, target, job.readers)
    except (InputError, OSError):
        if not target.exists() and not job.round:
            work.draft.reopen()
        raise
    work.draft.discard()


def _move(shard: Path, target: Path, readers: int | None) -> None:
    with (
        Directory.open(shard.parent) as draft,
        Directory.open(target.parent, make=folder_mode(readers)) as shards,
    ):
        if readers is not None:
            with draft.child(shard.name) as whole:
                grant(whole, readers)
        if shards.find(target.name) is not None:
            shards.remove_tree(target.name)
        shards.move_in(draft, target.name)


def find_draft(
    vault: Vault, job: Assignment, manifest: Manifest, protection: ArmConfig
) -> ShardDraft | None:
    """The draft of the expected shard, if there is one and its salts exist."""
    draft = ShardDraft.resume(job.draft_folder(manifest.settings))
    if draft is None or replace(draft.manifest, record=None) != manifest:
        return None
    return draft if _is_recorded(vault, job, draft.manifest, protection) else None


def abandon(vault: Vault, place: Path) -> None:
    """Remove a draft and its record."""
    if (name := record_of(place)) is not None:
        vault.drop_record(name)
    remove_draft(place)


def abandon_unless_finished(vault: Vault, place: Path) -> None:
    """Remove a draft and its record, but keep the finished one of a round, which may be recorded
    as handed over."""
    draft = ShardDraft.resume(place)
    if draft is None or not (draft.is_finished and draft.manifest.is_of_round):
        abandon(vault, place)


def remove_moved(vault: Vault) -> None:
    """Remove what calls that were killed left of drafts whose shards they had moved."""
    for place in sorted((vault.folder / DRAFTS).glob("*")):
        if has_moved(place):
            remove_draft(place)


def abandon_all(vault: Vault) -> None:
    """Remove the drafts of a vault, which no command will resume, but finished ones of rounds."""
    for place in sorted((vault.folder / DRAFTS).glob("*")):
        abandon_unless_finished(vault, place)
    with suppress(OSError):  # not empty if a removal was interrupted
        (vault.folder / DRAFTS).rmdir()


def flaw(vault: Vault, job: Assignment, digest: str, protection: ArmConfig) -> str | None:
    """Why a shard must be encrypted (again); None for an intact one with these settings."""
    folder = job.shard_folder(digest)
    manifest = read_manifest(folder)
    if manifest is None or manifest.settings != digest:
        return f"{folder}: not an encrypted shard"
    if not _is_recorded(vault, job, manifest, protection):
        whose = "the shard made ahead under the" if job.round else "the"
        return f"{folder}: its salts do not belong to {whose} current master key"
    if job.out is not None and (why := record_mismatch(vault.folder, digest, manifest.record)):
        return f"{folder}: {why}"
    try:
        open_shard([folder])
    except InputError as error:
        return str(error)
    return None


def expected_manifest(job: Assignment, digest: str, protection: ArmConfig) -> Manifest:
    """The manifest that a new shard will have, without its record of salts.

    Raises:
        InputError: For a label map that cannot be read, or frames that no window can be cut from.
    """
    data = job.data
    if data.frame_size is not None:
        check_windows(protection.cipher, data.frame_size, data.image_size, job.block_size)
    sizes = [
        scored_size(scene.size(), data.image_size, data.fit, job.block_size) for scene in job.scored
    ]
    if protection.labels == "encrypted" and data.fit == "resize":
        sizes = [cells_size(size, data.image_size) for size in sizes]
    return Manifest(
        schema=SCHEMA,
        client=job.client,
        settings=digest,
        block_size=job.block_size,
        num_images=len(job.train),
        num_views=len(job.views),
        first_view=job.views.start if job.round else 0,
        heldout_sizes=sizes,
        ciphers=versions_of(protection.cipher),
        frames=data.fit == "crop",
        labels=protection.labels,
        window=None if data.frame_size is None else data.image_size,
    )


def pictures(job: Assignment) -> list[Picture]:
    """The scenes of a shard in its order, with the settings of their views."""
    parts: tuple[tuple[Part, range, Sequence[Scene]], ...] = (
        ("train", job.views, job.train),
        ("heldout", range(1), job.scored),
    )
    return [
        Picture(part, scene, job.data, numbers, job.seed, job.block_size)
        for part, numbers, scenes in parts
        for scene in scenes
    ]


def _shared_record(vault: Vault, job: Assignment, protection: ArmConfig) -> Record:
    """The record of an owner's shard, whose keys the fresh views of all its rounds come from.

    Raises:
        InputError: That shard is not there.
    """
    folder = _made_ahead(job, protection)
    manifest = read_manifest(folder)
    if manifest is None or manifest.record is None:
        raise InputError(f"{folder}: no encrypted shard; prepare the run, or encrypt, again")
    if not vault.has_record(manifest.record):
        raise InputError(
            f"{folder}: its salts do not belong to the current master key; after a rotation, "
            "prepare the run, or encrypt, again"
        )
    return vault.find(manifest.record)[1]


def _made_ahead(job: Assignment, protection: ArmConfig) -> Path:
    """Folder of the shard that was made ahead of a round, with keys that the owner does not share
    with others."""
    ahead = job.of_round(0)
    return ahead.shard_folder(shard_digest(ahead, protection, None))


def _has_record(protection: ArmConfig) -> bool:
    """Whether the owner keeps a record of salts for a shard."""
    return protection.key_lifetime == "derived" and protection.key_mode != "shared"


def _is_recorded(vault: Vault, job: Assignment, manifest: Manifest, protection: ArmConfig) -> bool:
    """Whether the record that a shard names belongs to the current master key and to this job.

    That of a round must be the one that the shard made ahead names now.

    Raises:
        InputError: They are damaged.
    """
    name = manifest.record
    if not _has_record(protection):
        return name is None
    if name is None or not vault.has_record(name):
        return False
    if job.round:
        ahead = read_manifest(_made_ahead(job, protection))
        if ahead is None or ahead.record != name:
            return False
    record = vault.find(name)[1]
    return (
        (record.cipher, record.block_scope) == (protection.cipher, protection.block_scope)
        and record.versions == versions_of(protection.cipher)
        and (CLIENT in record.salts) == (protection.key_mode != "per-image")
        and record.train == [scene.scene_id for scene in job.train]
        and record.heldout == [scene.scene_id for scene in job.heldout]
    )


def _samples(job: Assignment) -> dict[str, str]:
    """Digests of the first views of the first and last training image, and a held-out one.

    Of fresh views none is known yet.
    """
    chosen = {*job.train[:1], *job.train[-1:], *job.heldout[:1]}
    return {
        view_name(picture.part, picture.scene.scene_id, 0): view_digest(next(picture.views())[0])
        for picture in pictures(job)
        if picture.scene in chosen and picture.numbers
    }
