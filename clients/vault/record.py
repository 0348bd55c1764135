"""What an owner keeps of a shard whose keys are derived: enough to decrypt it, for nobody else.

A record lies in the vault, named by a hash of its content; the shard's manifest says that name and
no more. It is written before the first image is encrypted, so that no salt is ever lost, and never
changed: an image that was under way when a process died is encrypted again to the same ciphertext.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, Self

from fl_ppseg.config import ArmConfig
from fl_ppseg.dataset import Scene
from fl_ppseg.errors import InputError
from fl_ppseg.keys import ClientKey, SubKey, new_salt

Part = Literal["train", "heldout"]
"""Part of a shard."""

CLIENT: Final = "client"
"""Name of the salt of a key that many images share."""


@dataclass(frozen=True)
class Record:
    """Salts and names of one encryption."""

    cipher: str
    block_scope: Literal["common", "per-block"]
    train: list[str]
    """Ids `split/city/stem` of the training images, in the order of the shard."""
    heldout: list[str]
    """The same of the held-out images."""
    salts: Mapping[str, str] = field(repr=False)
    """In hex: one of the client's key, or one a view by `view_name`."""
    samples: Mapping[str, str] = field(repr=False)
    """By `view_name`: hex digest of some plain views, to tell whether decryption gives them."""
    label_ids: list[int] = field(default_factory=list)
    """A labelId for each of the 256 trainIds, to write label maps as they are read. None in records
    of before they were kept."""

    @classmethod
    def new(
        cls,
        protection: ArmConfig,
        train: Sequence[Scene],
        heldout: Sequence[Scene],
        num_views: int,
        samples: Mapping[str, str],
    ) -> Self:
        """Draw the salts of a new shard.

        Args:
            protection: An arm with derived keys.
            train: Its training images.
            heldout: Its held-out images.
            num_views: Views of a training image.
            samples: Hex digests of some plain views.
        """
        parts = [scene.scene_id for scene in train], [scene.scene_id for scene in heldout]
        names = [CLIENT]
        if protection.key_mode == "per-image":
            views = ((scene, view) for scene in parts[0] for view in range(num_views))
            names = [view_name("train", scene, view) for scene, view in views]
            names += [view_name("heldout", scene, 0) for scene in parts[1]]
        assert protection.cipher is not None and protection.block_scope is not None
        salts = {name: new_salt().hex() for name in names}
        label_ids = (*train, *heldout)[0].classes.train_to_label.tolist()
        return cls(protection.cipher, protection.block_scope, *parts, salts, samples, label_ids)

    @property
    def name(self) -> str:
        """32 hex digits that name it and tell nothing of its salts."""
        return _name(self.to_json())

    def to_json(self) -> str:
        """JSON that `read_record` reads back."""
        return json.dumps(asdict(self))

    def of_scene(self, part: Part, scene_id: str, num_views: int) -> Self:
        """The record with the salts of one scene alone, for whoever encrypts it."""
        names = [CLIENT, *(view_name(part, scene_id, view) for view in range(num_views))]
        found = {name: self.salts[name] for name in names if name in self.salts}
        return replace(self, train=[], heldout=[], salts=found, samples={}, label_ids=[])

    def subkey(self, key: ClientKey, part: Part, scene_id: str, view: int) -> SubKey:
        """The key of one view: the client's, or the view's own.

        Args:
            key: The owner's master key.
            part: Where in the shard the view lies.
            scene_id: `split/city/stem` of its image.
            view: Number of the view.
        """
        if CLIENT in self.salts:
            return key.client_subkey(bytes.fromhex(self.salts[CLIENT]))
        _, city, stem = scene_id.split("/", 2)
        salt = bytes.fromhex(self.salts[view_name(part, scene_id, view)])
        return key.view_subkey(split=part, city=city, file=stem, view=view, salt=salt)


def view_name(part: Part, scene_id: str, view: int) -> str:
    """Names a view within a shard."""
    return f"{part}/{scene_id}/{view}"


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        InputError: It is missing or damaged.
    """
    try:
        text = path.read_text("utf-8")
        if _name(text) != path.stem:
            raise ValueError("its hash differs")
        return Record(**json.loads(text))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: damaged salts of derived keys ({error}); restore the vault's backup"
        ) from None


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
