"""The header of a .safetensors file, read and checked before any tensor is read; tensors in place.

Format: 8 bytes, the length of the header; the header, JSON of names to dtype, shape and place; the
bytes of the tensors (https://github.com/huggingface/safetensors).
"""

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from fl_ppseg.config.documents import parse_json
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError

MAX_HEADER_BYTES: Final = 16 * 2**20
MAX_TENSORS: Final = 200_000
MAX_NAME: Final = 1_000
MAX_AXES: Final = 64
"""As many as numpy has."""
ITEM_BYTES: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4,
    "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
NUMPY_TYPES: Final = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4",
    "U32": "<u4", "F32": "<f4", "I64": "<i8", "U64": "<u8", "F64": "<f8",
}  # fmt: skip
METADATA: Final = "__metadata__"

Shape = tuple[int, ...]


class Place(NamedTuple):
    """Where a tensor lies behind the header, in bytes, and of what type it is."""

    dtype: str
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """Names, shapes and places of the tensors of a file, and its metadata."""

    shapes: Mapping[str, Shape]
    places: Mapping[str, Place]
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
    length = _header_length(file.read(8), total, str(path))
    return _header(file.read(length), total - 8 - length, str(path))


def tensors_in(content: memoryview, source: str, max_header: int = MAX_HEADER_BYTES) -> Arrays:
    """The tensors in the bytes of a .safetensors file; they share its memory, and are read-only.

    Args:
        content: The bytes.
        source: What they are, for errors.
        max_header: Bytes of their header, at most.

    Raises:
        InputError: Their header does not describe what they hold, or numpy lacks a type.
    """
    length = _header_length(bytes(content[:8]), len(content), source, max_header)
    behind = content[8 + length :].toreadonly()
    header = _header(bytes(content[8 : 8 + length]), len(behind), source)
    arrays = {}
    for name, (dtype, begin, end) in header.places.items():
        if dtype not in NUMPY_TYPES:
            raise InputError(f"{source}: {name} is of type {dtype}, which numpy lacks")
        flat = np.frombuffer(behind[begin:end], NUMPY_TYPES[dtype])
        arrays[name] = flat.reshape(header.shapes[name])
    return arrays


def _header_length(first: bytes, total: int, source: str, most: int = MAX_HEADER_BYTES) -> int:
    length = int.from_bytes(first, "little")
    if not 2 <= length <= min(most, total - 8):
        raise InputError(f"{source}: not a .safetensors file (a header of {length:,} bytes)")
    return length


def _header(text: bytes, num_bytes: int, source: str) -> Header:
    values = parse_json(text, source, MAX_HEADER_BYTES)
    if not isinstance(values, dict) or len(values) > MAX_TENSORS:
        raise InputError(f"{source}: not a .safetensors file (its header is not a list of tensors)")
    metadata = values.pop(METADATA, {})
    try:
        shapes, places = _layout(values, num_bytes)
        if not isinstance(metadata, dict) or not all(
            isinstance(value, str) for value in metadata.values()
        ):
            raise ValueError("metadata is not text")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{source}: not a .safetensors file ({error})") from None
    return Header(shapes, places, metadata)


def _layout(
    entries: Mapping[str, Any], num_bytes: int
) -> tuple[dict[str, Shape], dict[str, Place]]:
    """The shapes and places by name, checked to be contiguous and to fill the file."""
    shapes, places = {}, {}
    for name, entry in entries.items():
        name.encode()  # a lone surrogate cannot be written as UTF-8, in no message
        if len(name) > MAX_NAME:
            raise ValueError(f"a name of {len(name)} characters")
        if not isinstance(entry, dict) or entry.get("dtype") not in ITEM_BYTES:
            raise ValueError(f"{name} is of unknown type")
        if not isinstance(entry["shape"], list) or len(entry["shape"]) > MAX_AXES:
            raise ValueError(f"{name} has no shape of at most {MAX_AXES} axes")
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise ValueError(f"{name} has no size")
        if end - begin != math.prod(shape) * ITEM_BYTES[entry["dtype"]]:
            raise ValueError(f"{name} of shape {shape} does not take {end - begin:,} bytes")
        if math.prod(max(number, 1) for number in shape) * 8 > sys.maxsize:
            raise ValueError(f"{name} has more elements than memory")
        shapes[name] = shape
        places[name] = Place(entry["dtype"], begin, end)
    last = 0
    for _, begin, end in sorted(places.values(), key=lambda place: (place.begin, place.end)):
        if begin != last:
            raise ValueError("tensors overlap, or leave a gap")
        last = end
    if last != num_bytes:
        raise ValueError(f"{num_bytes:,} bytes of tensors, its header says {last:,}")
    return shapes, places
