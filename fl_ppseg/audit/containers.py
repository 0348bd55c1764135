"""The contents of files: archives, compressed bytes, pictures, arrays and encoded text."""

import base64
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load

from fl_ppseg.audit.key_search import decimal
from fl_ppseg.data.image_files import MAX_PIXELS

MAX_DEPTH: Final = 4
"""Most containers inside containers that are opened."""
MAX_BYTES: Final = 1 << 30
"""Most bytes of a compressed member that are read."""
UNREADABLE: Final = (
    ArithmeticError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    Image.DecompressionBombError,
)
"""Errors of readers on bytes that only begin like their format."""
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{40,}")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
Member = tuple[str, bytes]
"""Name and bytes."""


def artefacts(folder: Path) -> Iterator[Member]:
    """Every file below a folder, and whatever is inside it.

    Args:
        folder: Links in it are not followed.

    Yields:
        Name, relative to the folder, and bytes.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield from opened(str(path.relative_to(folder)), path.read_bytes())


def opened(name: str, content: bytes, depth: int = MAX_DEPTH) -> Iterator[Member]:
    """Bytes, then what is inside them if they are a container, and inside that.

    Containers are zip (npz, pt, fab and wheels too), gzip, PNG, JSON, arrays of safetensors and npy
    with whole numbers in floating point, and long runs of base64 in anything. What only looks like
    one, is damaged or has a password, is taken as it is.

    Args:
        name: Of the bytes; what is inside is named `name!member`.
        content: The bytes.
        depth: How many containers deep to go.
    """
    yield name, content
    for member, inner in _members(content) if depth else ():
        yield from opened(f"{name}!{member}", inner, depth - 1)


def _members(content: bytes) -> Iterator[Member]:
    """What is directly inside a container, as far as it can be read."""
    for reader in (_reader(content), _base64):
        try:
            yield from reader(content)
        except UNREADABLE:
            continue


def _reader(content: bytes) -> Callable[[bytes], Iterator[Member]]:
    """The reader of the format that begins like these bytes."""
    return next((reader for begin, reader in READERS if begin.match(content)), _nothing)


def _zip(content: bytes) -> Iterator[Member]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                yield member.filename, file.read(MAX_BYTES)


def _gzip(content: bytes) -> Iterator[Member]:
    """Each of several concatenated streams; a truncated one as far as it can be read."""
    while content:
        stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        yield "gzip", stream.decompress(content, MAX_BYTES)
        content = stream.unused_data


def _png(content: bytes) -> Iterator[Member]:
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError("larger than any image of this program")
        yield "pixels", image.tobytes()


def _npy(content: bytes) -> Iterator[Member]:
    yield from _whole_numbers("array", np.load(io.BytesIO(content), allow_pickle=False))


def _safetensors(content: bytes) -> Iterator[Member]:
    for name, tensor in load(content).items():
        yield from _whole_numbers(name, tensor)


def _whole_numbers(name: str, array: npt.NDArray[Any]) -> Iterator[Member]:
    """Whole numbers stored in floating point, as text; integers are in the file as they are."""
    is_float = np.issubdtype(array.dtype, np.floating)
    if is_float and np.isfinite(array).all() and (array == np.rint(array)).all():
        yield name, decimal(map(int, array.ravel().tolist()))


def _json(content: bytes) -> Iterator[Member]:
    """Strings without their escapes, numbers without their points; of JSON lines, line by line."""
    try:
        values = json.loads(content)
    except ValueError:
        values = [json.loads(line) for line in content.splitlines() if line.strip()]
    leaves = list(_leaves(values))
    strings = "\n".join(leaf for leaf in leaves if isinstance(leaf, str))
    yield "strings", strings.encode("utf-8", "surrogatepass")
    numbers = (leaf for leaf in leaves if isinstance(leaf, float) and leaf.is_integer())
    yield "numbers", decimal(map(int, numbers))


def _leaves(values: Any) -> Iterator[Any]:
    """The keys, texts and numbers of a JSON value, in their order."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield key
            yield from _leaves(value)
    elif isinstance(values, list):
        for value in values:
            yield from _leaves(value)
    else:
        yield values


def _base64(content: bytes) -> Iterator[Member]:
    for run in _BASE64.finditer(content):
        text = run[0].translate(_STANDARD)
        text = text[:-1] if len(text) % 4 == 1 else text + b"=" * (-len(text) % 4)
        yield f"base64 at {run.start()}", base64.b64decode(text)


def _nothing(content: bytes) -> Iterator[Member]:
    yield from ()


READERS: Final = (
    (re.compile(rb"PK"), _zip),
    (re.compile(rb"\x1f\x8b"), _gzip),
    (re.compile(rb"\x89PNG"), _png),
    (re.compile(rb"\x93NUMPY"), _npy),
    (re.compile(rb".{8}\{", re.DOTALL), _safetensors),
    (re.compile(rb'\s*[\[{"]'), _json),
)
"""First bytes of each kind of container, and its reader; the first match counts."""
