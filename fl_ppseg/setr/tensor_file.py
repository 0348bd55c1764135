"""The header of a .safetensors file, read and checked before any tensor is read.

Format: 8 bytes, the length of the header; the header, JSON of names to dtype, shape and place; the
bytes of the tensors (https://github.com/huggingface/safetensors).
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from fl_ppseg.config.documents import parse_json
from fl_ppseg.system.errors import InputError

MAX_HEADER_BYTES: Final = 16 * 2**20
MAX_TENSORS: Final = 200_000
MAX_NAME: Final = 1_000
ITEM_BYTES: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4,
    "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
METADATA: Final = "__metadata__"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """Names and shapes of the tensors of a file, and its metadata."""

    shapes: Mapping[str, Shape]
    metadata: Mapping[str, str]

    @property
    def num_elements(self) -> int:
        """Number of elements of all tensors together."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def read_header(path: Path) -> Header:
    """Read and check the header of a .safetensors file; no tensor is read.

    Raises:
        InputError: The file cannot be read, or its header does not describe what it holds.
    """
    try:
        with path.open("rb") as file:
            return header_of(file, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def header_of(file: BinaryIO, path: Path) -> Header:
    """`read_header` of an open file, or of its bytes; the path is for errors.

    Raises:
        InputError: Its header does not describe what it holds.
        OSError: It cannot be read.
    """
    total = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, total - 8):
        raise InputError(f"{path}: not a .safetensors file (a header of {length:,} bytes)")
    text = file.read(length)
    values = parse_json(text, str(path), MAX_HEADER_BYTES)
    if not isinstance(values, dict) or len(values) > MAX_TENSORS:
        raise InputError(f"{path}: not a .safetensors file (its header is not a list of tensors)")
    metadata = values.pop(METADATA, {})
    try:
        shapes = _shapes(values, total - 8 - length)
        if not isinstance(metadata, dict) or not all(
            isinstance(value, str) for value in metadata.values()
        ):
            raise ValueError("metadata is not text")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a .safetensors file ({error})") from None
    return Header(shapes, metadata)


def _shapes(entries: Mapping[str, Any], num_bytes: int) -> dict[str, Shape]:
    """The shapes by name, checked to be contiguous and to fill the file."""
    shapes, spans = {}, []
    for name, entry in entries.items():
        if len(name) > MAX_NAME:
            raise ValueError(f"a name of {len(name)} characters")
        if not isinstance(entry, dict) or entry.get("dtype") not in ITEM_BYTES:
            raise ValueError(f"{name} is of unknown type")
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise ValueError(f"{name} has no size")
        if end - begin != math.prod(shape) * ITEM_BYTES[entry["dtype"]]:
            raise ValueError(f"{name} of shape {shape} does not take {end - begin:,} bytes")
        shapes[name] = shape
        spans.append((begin, end))
    place = 0
    for begin, end in sorted(spans):
        if begin != place:
            raise ValueError("tensors overlap, or leave a gap")
        place = end
    if place != num_bytes:
        raise ValueError(f"{num_bytes:,} bytes of tensors, its header says {place:,}")
    return shapes
