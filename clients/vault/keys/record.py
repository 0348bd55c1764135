"""What an owner keeps of a shard with derived keys: with the master key, enough to decrypt it.

A record lies in the vault, named by a hash of its content; the shard's manifest holds only that
name. It is written before the first image is encrypted, so that no salt is ever lost, and it never
changes: an image that was in progress when a process died is encrypted again to the same
ciphertext.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Final, Literal, Self, get_args

from clients.vault.layout import MAX_RECORD_BYTES
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.cipher_versions import as_recorded, check_versions, versions_of
from fl_ppseg.config.documents import parse_json
from fl_ppseg.crypto.keys import SALT_BYTES, ClientKey, Part, SubKey, new_salt
from fl_ppseg.data.dataset import Scene
from fl_ppseg.system.errors import InputError

CLIENT: Final = "client"
"""Name of the salt of a key that many images share."""

_CIPHER: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,40}(?:\+[a-z0-9][a-z0-9-]{0,40}){0,7}")
"""A cipher's name, or a product of a few."""
_HEX: Final = re.compile(r"[0-9a-f]+")
_VIEW: Final = re.compile(rf"(?:{'|'.join(get_args(Part))})/.+/(?:0|[1-9][0-9]{{0,8}})", re.DOTALL)
_ADDED: Final = frozenset({"label_ids", "ciphers"})
"""Fields that records of earlier versions lack."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


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
    """In hex: one for the client's key, or one per view by `view_name`."""
    samples: Mapping[str, str] = field(repr=False)
    """By `view_name`: hex digests of some plain views, to check decryption against."""
    label_ids: list[int] = field(default_factory=list)
    """A labelId for each of the 256 trainIds, to write label maps as they were read. Empty in
    records of earlier versions."""
    ciphers: Mapping[str, int] = field(default_factory=dict)
    """Version of each factor of the cipher. Empty in records of earlier versions."""

    @classmethod
    def new(
        cls,
        protection: ArmConfig,
        train: Sequence[Scene],
        heldout: Sequence[Scene],
        views: Sequence[int],
        samples: Mapping[str, str],
    ) -> Self:
        """Draw the salts of a new shard.

        Fresh views of an image share the salt of its view 0: their numbers tell their keys apart.

        Args:
            protection: An arm with derived keys.
            train: Its training images.
            heldout: Its held-out images.
            views: Numbers of the views of a training image; none: they are fresh.
            samples: Hex digests of some plain views.
        """
        parts = [scene.scene_id for scene in train], [scene.scene_id for scene in heldout]
        names = [CLIENT]
        if protection.key_mode == "per-image":
            every = ((scene, view) for scene in parts[0] for view in views or (0,))
            names = [view_name("train", scene, view) for scene, view in every]
            names += [view_name("heldout", scene, 0) for scene in parts[1]]
        assert protection.cipher is not None and protection.block_scope is not None
        salts = {name: new_salt().hex() for name in names}
        label_ids = (*train, *heldout)[0].classes.train_to_label.tolist()
        versions = versions_of(protection.cipher)
        head = protection.cipher, protection.block_scope
        return cls(*head, *parts, salts, samples, label_ids, versions)

    @property
    def versions(self) -> dict[str, int]:
        """Version of each factor of the cipher that encrypted the images."""
        return as_recorded(self.cipher, self.ciphers)

    @property
    def name(self) -> str:
        """32 hex digits that name it and reveal nothing about its salts."""
        return _name(self.to_json())

    def to_json(self) -> str:
        """JSON that `read_record` reads back."""
        return json.dumps(asdict(self))

    def of_scene(self, part: Part, scene_id: str, views: Sequence[int]) -> Self:
        """The record with the salts of one scene only, for the worker that encrypts it."""
        names = [CLIENT, *(view_name(part, scene_id, view) for view in {0, *views})]
        found = {name: self.salts[name] for name in names if name in self.salts}
        return replace(self, train=[], heldout=[], salts=found, samples={}, label_ids=[])

    def subkey(self, key: ClientKey, part: Part, scene_id: str, view: int) -> SubKey:
        """The key of one view: the client's, or the view's own.

        Args:
            key: The owner's master key.
            part: Where in the shard the view lies.
            scene_id: `split/city/stem` of its image.
            view: Number of the view.

        Raises:
            InputError: The images were encrypted with another version of a cipher.
        """
        check_versions(self.versions, f"images of {scene_id or 'a client'}")
        if CLIENT in self.salts:
            return key.client_subkey(bytes.fromhex(self.salts[CLIENT]))
        _, city, stem = scene_id.split("/", 2)
        own = self.salts.get(view_name(part, scene_id, view))
        salt = bytes.fromhex(own or self.salts[view_name(part, scene_id, 0)])  # that of fresh views
        return key.view_subkey(part=part, city=city, file=stem, view=view, salt=salt)


def view_name(part: Part, scene_id: str, view: int) -> str:
    """Names a view within a shard."""
    return f"{part}/{scene_id}/{view}"


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        InputError: It is missing, too large or damaged.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_RECORD_BYTES + 1)
        if (
            len(content) <= MAX_RECORD_BYTES
            and hashlib.sha256(content).hexdigest()[:32] != path.stem
        ):
            raise ValueError("its hash differs")
        return parse_record(content)
    except (OSError, ValueError, InputError) as error:
        raise InputError(
            f"{path}: the salts of derived keys are damaged ({error}); restore the vault's backup"
        ) from None


def parse_record(content: bytes) -> Record:
    """The record in a file's bytes.

    Raises:
        InputError: It is not JSON, or too large or deep.
        ValueError: It is not a record; the message contains no salt.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    values = parse_json(text, "record", MAX_RECORD_BYTES)
    named = {each.name for each in fields(Record)}
    if not isinstance(values, dict) or not named - _ADDED <= values.keys() <= named:
        raise ValueError(f"expected an object with {', '.join(sorted(named))}")
    record = Record(**values)
    _check_words(record)
    scenes = _checked_scenes(record)
    _check_digests("salts", record.salts, 2 * SALT_BYTES)
    _check_digests("samples", record.samples, 64)
    for views in (record.salts.keys() - {CLIENT}, record.samples.keys()):
        if not all(_scene_of(view) in scenes for view in views):
            raise ValueError("expected salts and samples of its own images only")
    if CLIENT not in record.salts and {_scene_of(view) for view in record.salts} != scenes:
        raise ValueError("expected a salt for each image")
    return record


def _check_words(record: Record) -> None:
    if not isinstance(record.cipher, str) or not _CIPHER.fullmatch(record.cipher):
        raise ValueError("cipher: expected a short name")
    if record.block_scope not in ("common", "per-block"):
        raise ValueError("block_scope: expected common or per-block")
    versions = record.ciphers
    if not isinstance(versions, dict) or not (
        versions.keys() <= set(record.cipher.split("+"))
        and all(type(each) is int and 1 <= each < 2**16 for each in versions.values())
    ):
        raise ValueError("ciphers: expected a version for each factor of the cipher")
    ids = record.label_ids
    if not isinstance(ids, list) or len(ids) not in (0, 256):
        raise ValueError("label_ids: expected none, or one for each of the 256 trainIds")
    if not all(type(each) is int and 0 <= each < 256 for each in ids):
        raise ValueError("label_ids: expected integers from 0 to 255")


def _checked_scenes(record: Record) -> set[tuple[str, str]]:
    """(part, scene id) of all images, each once and with names that stay in their folder.

    Raises:
        ValueError: They are not.
    """
    found = set()
    for part, scenes in (("train", record.train), ("heldout", record.heldout)):
        if not isinstance(scenes, list):
            raise ValueError(f"{part}: expected a list")
        for scene in scenes:
            if not isinstance(scene, str) or not _is_scene_id(scene):
                raise ValueError(f"{part}: expected ids split/city/stem of plain file names")
            found.add((part, scene))
    if not found or len(found) != len(record.train) + len(record.heldout):
        raise ValueError("expected at least one image, each named once")
    return found


def _is_scene_id(text: str) -> bool:
    """Whether a text is `split/city/stem`, each part a plain file name."""
    names = text.split("/")
    return len(names) == 3 and all(
        name not in ("", ".", "..") and len(name) <= 255 and not _CONTROL.search(name)
        for name in names
    )


def _check_digests(what: str, values: object, num_digits: int) -> None:
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{what}: expected a non-empty object")
    for name, value in values.items():
        if not (what == "salts" and name == CLIENT) and not _VIEW.fullmatch(name):
            raise ValueError(f"{what}: expected names part/split/city/stem/view")
        if not isinstance(value, str) or len(value) != num_digits or not _HEX.fullmatch(value):
            raise ValueError(f"{what}: expected {num_digits} lower-case hex digits as each value")


def _scene_of(view: str) -> tuple[str, str]:
    """(part, scene id) that the name of a view begins with."""
    part, _, rest = view.partition("/")
    return part, rest.rpartition("/")[0]


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
