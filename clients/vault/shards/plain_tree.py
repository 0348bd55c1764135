"""Writes a tree of decrypted images, whole or not at all, and removes what interrupted calls leave.

    <out>/.draft/                plain images, until all are written and moved up
    <vault>/<client>/decrypting    the path of <out>, as long as there may be a draft in it

A killed process cleans nothing up. The vault records where it may have left plain images: `show`
and `verify` report them, and the next decryption removes them first.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from clients.vault.keys.keyring import Vault
from clients.vault.layout import DECRYPTING
from clients.vault.shards.recovery import PlainView, decrypt_shard, wrong_samples
from fl_ppseg.data.shard import open_shard
from fl_ppseg.data.tree_layout import IMAGES, LABEL_SUFFIX, LABELS
from fl_ppseg.system.atomic_file import CREATE, plain_name
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

DRAFT: Final = ".draft"


def write_tree(vault: Vault, shard: Path, out: Path) -> int:
    """Decrypt a shard to PNGs in Cityscapes layout, for `open_dataset`; only its owner can read it.

    `leftImg8bit/<split>/<city>/<stem>_leftImg8bit.png` is the image at the model's size, further
    views are `<stem>_view<n>_leftImg8bit.png`. Label maps have their image's size, held-out ones
    too, and of several labelIds of a class the smallest.

    Args:
        vault: The vault that it was encrypted in.
        shard: Folder of the shard.
        out: An absolute path; a new folder, an empty one, or one that an interrupted call left.

    Returns:
        Number of views.

    Raises:
        InputError: As `decrypt_shard`; the folder is not empty; or samples decrypt wrongly.
        OSError: The folder cannot be written.
    """
    with vault.lock():
        remove_unfinished(vault)
        if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out}: exists and is not an empty folder; choose a new --out")
        try:
            write_atomically(vault.folder / DECRYPTING, str(out), mode=0o600)
            with Directory.open(out, make=0o700) as tree:
                return _write_views(vault, shard, tree)
        finally:
            remove_unfinished(vault)


def _write_views(vault: Vault, shard: Path, tree: Directory) -> int:
    """Decrypt a shard into an open folder; returns the number of views."""
    tree.chown(mode=0o700)
    number, label_ids = 0, _verified_label_ids(vault, shard)
    with tree.make_child(DRAFT) as draft:
        for view in decrypt_shard(vault, shard):
            _write(draft, view, label_ids)
            number += 1
        for part in (LABELS, IMAGES):
            tree.move_in(draft, part)
    tree.remove_tree(DRAFT)
    return number


def unfinished_tree(vault: Vault) -> Path | None:
    """The folder in which an interrupted decryption left plain images; None if there is none."""
    out = _read_note(vault)
    return out if out is not None and (out / DRAFT).is_dir() else None


def unfinished_warning(out: Path) -> str:
    """A warning about the images of an `unfinished_tree`."""
    return (
        f"{out}: plain images of a decryption that was interrupted, or is still running; the next "
        "`decrypt` removes them"
    )


def remove_unfinished(vault: Vault) -> None:
    """Remove what an interrupted decryption left. The caller holds the vault's lock."""
    out = unfinished_tree(vault)
    if out is not None:
        with Directory.open(out) as tree:
            for part in (IMAGES, LABELS, DRAFT):  # the draft last, so that the next call finds it
                if tree.find(part) is not None:
                    tree.remove_tree(part)
        with suppress(OSError):
            out.rmdir()
    elif out is None and (place := _read_note(vault)) is not None:
        with suppress(OSError):
            place.rmdir()  # made, and still empty
    (vault.folder / DECRYPTING).unlink(missing_ok=True)


def _verified_label_ids(vault: Vault, shard: Path) -> np.ndarray:
    """(256,) uint8, trainId -> labelId of a shard, after its samples were decrypted and checked.

    Raises:
        InputError: A sample decrypts to another image, or the record has no label ids.
    """
    if wrong := wrong_samples(vault, shard):
        raise InputError(
            f"{shard}: {wrong[0]} does not decrypt to the image that was encrypted; the shard or "
            "the vault was changed, so run `verify`"
        )
    (part,) = open_shard([shard]).parts
    assert part.manifest.record is not None
    label_ids = vault.find(part.manifest.record)[1].label_ids
    if not label_ids:
        raise InputError(
            f"{shard}: made by an earlier version, which did not record labelIds; rotate the key "
            "and encrypt the images again"
        )
    return np.array(label_ids, dtype=np.uint8)


def _read_note(vault: Vault) -> Path | None:
    note = vault.folder / DECRYPTING
    return Path(note.read_text("utf-8")) if note.exists() else None


def _write(root: Directory, view: PlainView, label_ids: np.ndarray) -> None:
    split, city, stem = view.scene_id.split("/", 2)
    name = f"{stem}_view{view.view}" if view.view else stem
    image = Image.fromarray(np.ascontiguousarray(view.image.transpose(1, 2, 0)))  # CHW -> HWC
    labels = Image.fromarray(label_ids[view.labels]).resize(image.size, Image.Resampling.NEAREST)
    for kind, suffix, picture in (
        (IMAGES, "_leftImg8bit.png", image),
        (LABELS, LABEL_SUFFIX, labels),
    ):
        with (
            root.make_child(kind) as images,
            images.make_child(split) as part,
            part.make_child(city) as folder,
        ):
            _save(picture, folder, f"{name}{suffix}")


def _save(picture: Image.Image, folder: Directory, name: str) -> None:
    """Write a new PNG that only its owner can read."""
    try:
        descriptor = os.open(plain_name(name), CREATE, 0o600, dir_fd=folder.descriptor)
    except FileExistsError:
        raise InputError(
            f"{folder.path / name}: two views of the shard have this name, so its record in the "
            "vault is damaged; restore the vault's backup"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        picture.save(file, format="PNG")
