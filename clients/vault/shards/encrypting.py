"""Encrypts one scene into the drafts of all shards that need it: views, keys, cipher.

A task can go to any process of the owner: it names the vault and contains salts, never a key.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clients.vault.keys.keyring import Vault, ensure_shared_subkey
from clients.vault.keys.record import Record
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.data import DataConfig
from fl_ppseg.crypto.arm_images import encrypted, pixel_order_of
from fl_ppseg.crypto.keys import Part, SubKey
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.pixel_order import PixelOrder, scaled_to_cells
from fl_ppseg.data.shard_draft import ShardDraft
from fl_ppseg.data.views import View, fit_for_scoring, views
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.spans import span, within

Keys = Callable[[int], SubKey]
"""Number of a view -> its key."""


@dataclass(frozen=True)
class Picture:
    """A scene and the settings of its views."""

    part: Part
    scene: Scene
    data: DataConfig
    numbers: range
    """Of its views; a held-out image has view 0."""
    seed: int
    """Of the augmented views."""
    block_size: int
    """Side of a cipher block in pixels."""

    def views(self) -> Iterator[View]:
        """Training views, or the one held-out image with labels at their own size.

        Raises:
            InputError: For an image or label map that cannot be read.
        """
        if not self.numbers:
            return
        image, labels = self.scene.load()
        window, size, policy = self.data.image_size, self.data.view_size, self.data.fit
        if self.part == "heldout":
            yield fit_for_scoring(image, labels, window, policy, self.block_size)
            return
        first, number, name = self.numbers[0], len(self.numbers), self.scene.scene_id
        yield from views(image, labels, size, policy, number, self.seed, name, first)


@dataclass(frozen=True)
class Target:
    """A shard that a scene goes into."""

    draft: Path
    """Folder of its draft."""
    protection: ArmConfig
    record: Record | None = field(repr=False)
    """The owner's record with this scene's salts; None if no key is derived."""


@dataclass(frozen=True)
class SceneTask:
    """A scene to encrypt: picklable, contains no key."""

    vault: Path
    number: int
    """Number of the scene in the shards."""
    picture: Picture
    block_size: int
    targets: tuple[Target, ...]


def encrypt_scene(task: SceneTask) -> None:
    """Encrypt all views of a scene for all shards that need it, and write them into the drafts.

    Raises:
        InputError: For an image or label map that cannot be read or encrypted, or a key that cannot
            be loaded.
    """
    vault = Vault(task.vault)
    drafts = [ShardDraft(target.draft) for target in task.targets]
    keys = [_keys(vault, task.picture, target) for target in task.targets]
    for place, (image, labels) in enumerate(within("data", task.picture.views())):
        view = task.picture.numbers[place]
        for draft, target, keys_of in zip(drafts, task.targets, keys, strict=True):
            size, key = task.block_size, keys_of(view)
            ciphertext = encrypted(image, key, target.protection, size)
            order = pixel_order_of(key, target.protection, image.shape[1:], size)
            moved = labels if order is None else in_order(labels, order, image.shape[1:])
            with span("data"):
                draft.put(task.number, place, ciphertext, moved)


def in_order(labels: Pixels, order: PixelOrder, image_size: tuple[int, int]) -> Pixels:
    """(h, w) trainIds -> (kH, kW), moved with the pixels of the image, k x k for each of them.

    Args:
        labels: Of a view; of a held-out image at the label map's own size, which is brought to a
            whole number of labels a pixel.
        order: Of the encrypted view.
        image_size: (H, W) of the view, in pixels.
    """
    cells = scaled_to_cells(labels, image_size)
    return order.permuted_cells(cells, cells.shape[0] // image_size[0])


def view_digest(view: np.ndarray) -> str:
    """SHA-256 of a plain view in hex."""
    return hashlib.sha256(np.ascontiguousarray(view).tobytes()).hexdigest()


def _keys(vault: Vault, picture: Picture, target: Target) -> Keys:
    """Hands out the key of each view that key mode and lifetime ask for; no key is drawn twice."""
    if target.protection.key_mode == "shared":
        shared = ensure_shared_subkey(vault.folder.parent, target.protection)
        return lambda _: shared
    if target.record is None:
        return lambda _: SubKey.generate()
    record, key, name = target.record, vault.ensure_key(), picture.scene.scene_id
    return lambda view: record.subkey(key, picture.part, name, view)
