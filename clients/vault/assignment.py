"""What one owner encrypts and what results from it: plain values, no keys."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from clients.policy.fresh_views import round_views
from clients.vault.layout import DRAFTS, PRIVATE, SHARDS
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.cipher_versions import versions_of
from fl_ppseg.config.data import DataConfig
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.manifest import round_digest
from fl_ppseg.data.views import UNAUGMENTED
from fl_ppseg.system.arrays import Arrays

NAMED_SINCE: Final = 3
"""Version of the settings that digests are made of, with their words: a digest is the name of a
folder, and shards and private embeddings that exist keep theirs."""
PLAIN = ArmConfig(note="images as they are")


@dataclass(frozen=True)
class FreshViews:
    """Views that are made round by round, in place of some that are made ahead."""

    each: int
    """Views of an image in a round: one for each local epoch."""
    place: Path
    """Where the shards of rounds go."""
    round: int = 0
    """Whose training views are encrypted; 0: no round's, but the held-out images."""


@dataclass(frozen=True)
class Assignment:
    """What one owner encrypts: picklable, contains no key."""

    vault: Path
    """This owner's vault; only the owner's processes use it."""
    client: str
    train: tuple[Scene, ...]
    heldout: tuple[Scene, ...]
    data: DataConfig
    block_size: int
    """Side of a cipher block in pixels: the ViT's patch."""
    seed: int
    """Seed of the augmented views; keys are never derived from it."""
    protections: Mapping[str, ArmConfig]
    """How the images of each arm are protected."""
    public: Arrays = field(default_factory=dict, repr=False)
    """The public patch embedding of round 0, which private ones are adapted from."""
    run: str = ""
    """Name of the run; private embeddings that its nodes train are not shared with other runs."""
    out: Path | None = None
    """The node folder, where shards and private embeddings go; None: into the vault."""
    readers: int | None = None
    """Id of a group that may read the node folder; None: only its owner may."""
    fresh: FreshViews | None = None
    """Of a run with fresh views; None: all views are made ahead."""

    @property
    def round(self) -> int:
        """The round whose fresh views are encrypted; 0: what is made ahead."""
        return 0 if self.fresh is None else self.fresh.round

    @property
    def views(self) -> range:
        """Numbers of the views of a training image."""
        if self.fresh is None:
            return range(self.data.num_views)
        return round_views(self.fresh.round, self.fresh.each)

    @property
    def scored(self) -> tuple[Scene, ...]:
        """The held-out images of the shard: a round's has none."""
        return () if self.round else self.heldout

    def of_round(self, round: int) -> "Assignment":
        """The same with the fresh views of a round."""
        assert self.fresh is not None
        return replace(self, fresh=replace(self.fresh, round=round))

    def shard_folder(self, digest: str) -> Path:
        """Folder of the shard with this digest of its settings."""
        if self.fresh is not None and self.round:
            return self.fresh.place / digest
        return (self.out or self.vault) / SHARDS / digest

    def private_folder(self, digest: str) -> Path:
        """Folder of the private embedding with this digest of its settings."""
        return (self.out or self.vault) / PRIVATE / digest

    def draft_folder(self, digest: str) -> Path:
        """Folder in which the shard with this digest of its settings is being written."""
        return self.vault / DRAFTS / digest


class Prepared(NamedTuple):
    """What the training node of one owner gets for one arm."""

    shard: Path
    """Folder of the encrypted shard."""
    private: Path | None
    """Folder of the private embedding's versions; None where the arm has none."""
    rounds: Path | None = None
    """Where the shards of rounds will lie; None: all views are in the shard, or it has none."""


def stored_as(protection: ArmConfig) -> ArmConfig:
    """The protection of an arm's images on the node: plain if only queries are encrypted."""
    return PLAIN if protection.encrypted == "queries" else protection


def folder_mode(readers: int | None) -> int:
    """Permissions of a folder."""
    return 0o700 if readers is None else 0o750


def file_mode(readers: int | None) -> int:
    """Permissions of a file."""
    return 0o600 if readers is None else 0o640


def shard_digest(job: Assignment, protection: ArmConfig, key: str | None) -> str:
    """Digest of everything that a shard depends on, except its owner's own keys.

    Args:
        job: Images and sizes.
        protection: Key mode, cipher, scope and lifetime.
        key: Fingerprint of the key if it is shared with other owners, else None.
    """
    if job.round:
        return round_digest(shard_digest(job.of_round(0), protection, key), job.round)
    settings: dict[str, object] = {
        "schema": NAMED_SINCE,
        "city": job.client,
        "train": [_identity(scene) for scene in job.train],
        "heldout": [_identity(scene) for scene in job.heldout],
        "data": job.data.model_dump(mode="json", include={"image_size", "fit", "num_views"}),
        "classes": _table_digest(job),
        "block_size": job.block_size,
        "seed": job.seed,
        "protection": protection.model_dump(
            include={"key_mode", "cipher", "block_scope", "key_lifetime"}
        ),
        "ciphers": versions_of(protection.cipher),
    }
    if protection.labels == "encrypted":
        settings["labels"] = protection.labels  # earlier shards had none of these
    if job.data.frame_size is not None:
        settings["frame_size"] = job.data.frame_size  # earlier ones had no frames to train on
    if job.data.fit == "crop":
        settings["heldout_frames"] = True  # earlier shards held a window of each held-out image
    if job.fresh is not None:
        # Earlier ones had all views in one shard, then augmented ones alone in those of rounds.
        settings["fresh_views"] = [job.fresh.each, UNAUGMENTED]
        settings["data"] = job.data.model_dump(mode="json", include={"image_size", "fit"})
    return digest(settings if key is None else settings | {"key": key})


def digest(settings: Mapping[str, object]) -> str:
    """SHA-256 of plain values, the first 32 hex digits."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _table_digest(job: Assignment) -> str:
    table = next(scene.classes.label_to_train for scene in job.train + job.heldout)
    return hashlib.sha256(table.tobytes()).hexdigest()


def _identity(scene: Scene) -> list[object]:
    """An image and its label map by name and content.

    Not by size and modification time: copies of the same data have other times, and a corrected
    label map may keep both.
    """
    return [scene.scene_id, scene.content or scene.identified().content]
