"""What a node may know of a shard beside its arrays: the file `manifest.json` in it."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter

from fl_ppseg.config.cipher_versions import check_versions
from fl_ppseg.config.names import ClientOrCity
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.plain_json import read_as

SCHEMA: Final = 4
"""Version of the manifests that are written."""
READABLE: Final = (3, SCHEMA)
"""Those of 3 have `city` in place of `client`, and are read: an owner may have nothing else of its
images. Those of before 3 do not say the versions of their ciphers."""
MANIFEST: Final = "manifest.json"
MAX_BYTES: Final = 2**26
"""A held-out image takes some 14 bytes of it."""
DIGEST: Final = re.compile(r"[0-9a-f]{32}")
"""Names of shards, private embeddings and records: they are folders' and files' too."""
MAX_SIDE: Final = 2**16
MAX_IMAGES: Final = 2**24


def is_digest(name: str) -> bool:
    """Whether something can be named so that is named by a digest."""
    return DIGEST.fullmatch(name) is not None


def _digest(name: str) -> str:
    if not is_digest(name):
        raise ValueError(f"expected 32 hex digits, got {ascii(name)[:60]}")
    return name


def _sha256(name: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", name):
        raise ValueError(f"expected 64 hex digits, got {ascii(name)[:60]}")
    return name


def round_digest(shard: str, round: int) -> str:
    """Name of the shard that holds the fresh views of a round.

    >>> round_digest("0" * 32, 1)
    'ead37b319115c247a98f63c96e94072b'

    Args:
        shard: Name of the owner's shard, which holds the held-out images.
        round: From 1.
    """
    return hashlib.sha256(f"fl_ppseg round v1\n{shard}\n{round}".encode()).hexdigest()[:32]


Digest = Annotated[str, AfterValidator(_digest)]
"""32 hex digits."""
Count = Annotated[int, Field(ge=0, le=MAX_IMAGES)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
CipherName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
"""Of one factor of a product."""
Version = Annotated[int, Field(ge=1, le=MAX_SIDE, strict=True)]


@dataclass(frozen=True)
class Manifest:
    """A shard's manifest."""

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")

    schema: int
    client: ClientOrCity
    settings: Digest
    """Digest of everything the shard was made from and with."""
    block_size: Annotated[int, Field(ge=1, le=1024)]
    num_images: Count
    num_views: Annotated[int, Field(ge=0, le=MAX_SIDE)]
    """0: training images have none here, each round has a shard of its own (fresh views)."""
    heldout_sizes: list[tuple[Side, Side]]
    """Height and width of each held-out label map."""
    record: Digest | None = None
    """Names the owner's own record of its derived keys' salts; none: it has none."""
    ciphers: Mapping[CipherName, Version] = field(default_factory=dict)
    """Version of each cipher that its images were encrypted by; none where they are plain."""
    frames: bool = False
    """Whether each held-out image is as large as its label map, and not as the training views."""
    labels: Literal["plain", "encrypted"] = "plain"
    """Whether label maps are as they are, or moved with the pixels of each block."""
    window: tuple[Side, Side] | None = None
    """Height and width of the windows that are cut from the training views; none: these are as
    large as the model's input."""
    first_view: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Number of the first view of each training image; 1 or more in the shard of a round (fresh
    views), whose views no other round has."""
    sha256: Mapping[str, Sha256] = field(default_factory=dict)
    """Hex digest of each array by its file, e.g. `gtFine/val/aachen.npy`; none in a draft."""

    @property
    def num_heldout(self) -> int:
        """Number of held-out images."""
        return len(self.heldout_sizes)

    @property
    def is_of_round(self) -> bool:
        """Whether it holds the fresh views of one round, and no held-out image."""
        return self.first_view > 0

    @property
    def samples_are_kept(self) -> bool:
        """Whether its owner can compare some decrypted images with those that were encrypted."""
        return self.record is not None and not self.is_of_round

    @property
    def files(self) -> tuple[str, ...]:
        """Files of the four arrays."""
        return tuple(
            f"{kind}/{part}/{self.client}.npy"
            for part in ("train", "val")
            for kind in ("leftImg8bit", "gtFine")
        )

    def shapes(self, image_size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """Shapes of the four arrays by their file.

        Args:
            image_size: (height, width) of the encrypted images, in pixels.
        """
        train = (self.num_images, self.num_views)
        num_labels = sum(height * width for height, width in self.heldout_sizes)
        heldout = (3 * num_labels,) if self.frames else (self.num_heldout, 3, *image_size)
        shapes = ((*train, 3, *image_size), (*train, *image_size), heldout, (num_labels,))
        return dict(zip(self.files, shapes, strict=True))


_FORM = TypeAdapter(Manifest)


def parse_manifest(content: bytes, source: str, *, finished: bool) -> Manifest:
    """The manifest in the bytes of a file.

    Args:
        content: JSON.
        source: Names the file in messages.
        finished: Whether it is a whole shard's, which has a hash for each array, or a draft's,
            which has none.

    Raises:
        InputError: It is of another version or form, or damaged, or its images were encrypted by
            another version of a cipher.
    """
    manifest = read_as(_FORM, content, f"{source}: damaged manifest of a shard", MAX_BYTES)
    if manifest.schema not in READABLE:
        told = ""
        if manifest.schema < min(READABLE):
            told = " (where it has that cipher, it is encrypted by version 1 of negative-positive)"
        raise InputError(
            f"{source}: a shard of version {manifest.schema}, expected {SCHEMA}{told}; encrypt the "
            "images again"
        )
    check_versions(manifest.ciphers, source)
    if manifest.is_of_round and (manifest.heldout_sizes or not manifest.num_views):
        raise InputError(
            f"{source}: damaged manifest of a shard (first_view: a round has views and holds no "
            "image out); encrypt the images again"
        )
    expected = set(manifest.files) if finished else set()
    if manifest.sha256.keys() != expected:
        raise InputError(
            f"{source}: damaged manifest of a shard (sha256: expected those of "
            f"{len(expected)} files "
            "that are named after its client); encrypt the images again"
        )
    return manifest


def load_manifest(path: Path, *, finished: bool = True) -> Manifest:
    """The manifest in a file, as `parse_manifest`.

    Raises:
        InputError: There is none, or it is damaged.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path.parent}: no encrypted shard; encrypt the images again") from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); it is the manifest of an encrypted shard"
        ) from None
    return parse_manifest(content, str(path), finished=finished)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a shard, or None where there is no whole shard of this version."""
    try:
        return load_manifest(folder / MANIFEST)
    except InputError:
        return None
