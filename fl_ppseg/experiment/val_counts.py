"""Confusion counts of each val image under the weights of each arm and seed, in a run folder.

    <run>/val_images.safetensors    <name> (M, N, C, C) uint32: M models, N val images

`<name>` is `<arm>/<seed>/newest` or `<arm>/<seed>/start`, or `no image`; there are several models
if every client has its own. Images are identified by client and index, never by their owner's file
name. Intervals over images can be computed from this file without an image.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fl_ppseg.config.documents import parse_json
from fl_ppseg.config.run_layout import VAL_IMAGES
from fl_ppseg.setr.tensor_file import Shape, read_header
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

logger = logging.getLogger(__name__)

NO_IMAGE: Final = "no image"
SCHEMA: Final = "2"
"""Version 1 had `cities` in place of `clients`."""
MAX_BYTES: Final = 4 * 2**30
"""500 images, 19 classes, 20 arms and 50 seeds take a third of this."""

Counts = NDArray[np.uint32]
Value = TypeVar("Value", int, str)


@dataclass(frozen=True)
class ValCounts:
    """Tables of counts by name, all of the same images."""

    images: str
    """Digest of the val images and label maps, all in one."""
    clients: Mapping[str, int]
    """Number of images of each val client, in the order of the tables."""
    tables: Mapping[str, Counts] = field(default_factory=dict)
    """(M, N, C, C) by name."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Digest of the weights or answer behind each table, by name."""

    @property
    def num_images(self) -> int:
        """Val images that are counted."""
        return sum(self.clients.values())

    def is_of(self, images: str, sizes: Mapping[str, int], num_classes: int) -> bool:
        """Whether these are counts of the same images, in this order, and of as many classes."""
        is_same = self.images == images and list(self.clients.items()) == list(sizes.items())
        return is_same and all(table.shape[-1] == num_classes for table in self.tables.values())

    def of(self, arm: str, seed: int, which: str) -> Counts | None:
        """The table of an arm's `newest` weights or those of its `start`."""
        return self.tables.get(name_of(arm, seed, which))

    def including(self, name: str, table: NDArray[np.int64], weights: str) -> "ValCounts":
        """A copy with one table added or replaced."""
        tables = {**self.tables, name: table.astype(np.uint32)}
        return replace(self, tables=tables, weights={**self.weights, name: weights})


def name_of(arm: str, seed: int, which: str) -> str:
    """The name of a table."""
    return f"{arm}/{seed}/{which}"


def digest_of(arrays: Arrays) -> str:
    """Digest of weights, or of an answer without an image."""
    digest = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def digest_of_images(contents: Iterable[tuple[str, str | None]]) -> str:
    """One digest over all (client, digest of content) pairs; it identifies no single image."""
    return hashlib.sha256(json.dumps(list(contents)).encode()).hexdigest()


def save_counts(run: Path, counts: ValCounts) -> None:
    """Write the counts into a run folder atomically; none if they are larger than can be read."""
    if sum(table.nbytes for table in counts.tables.values()) > MAX_BYTES // 2:
        logger.warning("%s: counts of %d val images are too many to keep", run, counts.num_images)
        return
    about = {
        "schema": SCHEMA,
        "images": counts.images,
        "clients": json.dumps(dict(counts.clients)),
        "weights": json.dumps(dict(counts.weights)),
    }
    write_atomically(run / VAL_IMAGES, save(dict(counts.tables), about))


def load_counts(run: Path) -> ValCounts | None:
    """Read the counts in a run folder; None if there are none.

    Raises:
        InputError: The file is damaged, or of another version.
    """
    path = run / VAL_IMAGES
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        header = read_header(path)
        about = header.metadata
        if (schema := about.get("schema")) != SCHEMA:
            raise ValueError(f"schema {schema!r}, expected {SCHEMA!r}")
        clients, weights = _named(about, "clients", int), _named(about, "weights", str)
        _check(header.shapes, clients, weights)
        tables = load_file(path)
        if any(table.dtype != np.uint32 for table in tables.values()):
            raise ValueError("expected counts as uint32")
        return ValCounts(about["images"], clients, tables, weights)
    except (InputError, ValueError, KeyError, SafetensorError) as error:
        why = str(error).removeprefix(f"{path}: ")
        raise InputError(
            f"{path}: is not a file of counts ({why}); remove it and make it again with --resume"
        ) from None


def _named(about: Mapping[str, str], name: str, kind: type[Value]) -> dict[str, Value]:
    """An entry of the metadata: values of one type by name."""
    values = parse_json(about[name], name)
    if not isinstance(values, dict) or any(type(value) is not kind for value in values.values()):
        raise ValueError(f"{name}: expected each to be of type {kind.__name__}")
    return values


def _check(
    shapes: Mapping[str, Shape], clients: Mapping[str, int], weights: Mapping[str, str]
) -> None:
    """Check that tables are of these images, and each is of known weights."""
    if min(clients.values(), default=0) < 0 or shapes.keys() != weights.keys():
        raise ValueError("tables and metadata differ")
    num_images = sum(clients.values())
    for name, shape in shapes.items():
        is_table = len(shape) == 4 and shape[1] == num_images and shape[2] == shape[3]
        if not is_table or min(shape[0], shape[2]) < 1:
            raise ValueError(f"{name[:80]} of shape {shape}, expected (M, {num_images}, C, C)")
    if len({shape[2:] for shape in shapes.values()}) > 1:
        raise ValueError("tables of several numbers of classes")
