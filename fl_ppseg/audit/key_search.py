"""Search of artefacts for key material, byte by byte, at every offset.

Needles are keys and the beginnings of permutations and of embeddings, as raw bytes and as hex,
base64 and decimal text. Haystacks are bytes: messages, files and the contents of containers.
"""

import base64
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer[Any]]
NON_DIGITS: Final = bytes(set(range(256)) - set(b"0123456789"))
TO_SPACES: Final = bytes.maketrans(NON_DIGITS, b" " * len(NON_DIGITS))
WORD: Final = 8
"""Bytes of a needle that are looked up in the haystack: the least length of a needle."""


def needles_of_key(secret: bytes) -> Iterator[bytes]:
    """Encode a secret as raw bytes, hex, base64 at any alignment, and decimal.

    Decimal is one number per byte, as `numbers_in` renders lists, or one number in either byte
    order.
    """
    yield from encodings(secret)
    yield decimal(list(secret))
    for order in ("big", "little"):
        yield str(int.from_bytes(secret, order)).encode()


def needles_of_permutation(permutation: Integers) -> Iterator[bytes]:
    """Encode the beginnings of a permutation and its inverse, as integers of all usual sizes.

    Raw, hex, base64, and decimal text as `numbers_in` renders it. The inverse is `argsort`: for a
    codebook its inverse, for a mask the positions that are not chosen, then those that are.

    Args:
        permutation: (L,) integers.
    """
    for order in (permutation, np.argsort(permutation, kind="stable")):
        begin = order[:64]  # a restricted shuffle may begin 0, 1, 2, ...
        for dtype in ("uint8", "<u2", ">u2", "<i4", ">i4", "<i8", ">i8"):
            yield from encodings(begin.astype(dtype).tobytes())
        yield decimal(begin.tolist())


def needles_of_embedding(weight: npt.NDArray[np.floating[Any]]) -> Iterator[bytes]:
    """Encode a patch embedding or its bias in either memory layout.

    The beginning of every row and column: raw in half, single and double precision, and in single
    precision as text.

    Args:
        weight: (D, L), or a bias (1, D).
    """
    for layout in (weight, weight.T) if len(weight) > 1 else (weight,):
        for dtype in ("<f2", "<f4", "<f8"):
            for row in layout.astype(dtype):
                begin = row.tobytes()[:48]
                yield from encodings(begin) if dtype == "<f4" else (begin,)


def encodings(raw: bytes) -> Iterator[bytes]:
    """Bytes raw, as hex, and as base64 at any alignment."""
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for skip in range(3):
        whole = base64.b64encode(bytes(skip) + raw)
        start, end = -(-8 * skip // 6), (8 * (skip + len(raw))) // 6
        yield whole[start:end]
        yield whole[start:end].translate(bytes.maketrans(b"+/", b"-_"))


def decimal(numbers: Iterable[int]) -> bytes:
    """Numbers as `numbers_in` renders them."""
    return " ".join(map(str, numbers)).encode()


def numbers_in(text: bytes) -> bytes:
    """Runs of digits separated by spaces, so that JSON, YAML and tables look the same."""
    return b" ".join(text.translate(TO_SPACES).split())


def search(haystacks: Iterable[tuple[str, bytes]], needles: Iterable[bytes]) -> set[str]:
    """Names of the haystacks that hold a needle at any offset, in their bytes or their numbers.

    Args:
        haystacks: Names and bytes, consumed one at a time.
        needles: Each of `WORD` bytes or more.
    """
    anchored: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for needle in needles:
        start = anchor(needle)
        word = int.from_bytes(needle[start : start + WORD], "little")
        anchored[word].append((start, needle))
    anchors = np.array(sorted(anchored), "<u8")
    return {
        name
        for name, text in haystacks
        if any(_holds(form, anchors, anchored) for form in (text, numbers_in(text)))
    }


def anchor(needle: bytes) -> int:
    """Offset of the 8 bytes near a needle's start that are least like padding."""
    return max(
        range(min(64, len(needle) - WORD + 1)),
        key=lambda start: len(set(needle[start : start + WORD])),
    )


def _holds(
    text: bytes,
    anchors: npt.NDArray[np.uint64],
    anchored: Mapping[int, list[tuple[int, bytes]]],
) -> bool:
    """Whether bytes hold one of the needles with one of the anchors, which are in rising order."""
    if not len(anchors):
        return False
    for offset in range(min(WORD, max(0, len(text) - WORD + 1))):
        words = np.frombuffer(text, "<u8", (len(text) - offset) // WORD, offset)
        places = anchors.searchsorted(words).clip(max=len(anchors) - 1)
        for index in np.flatnonzero(anchors[places] == words).tolist():
            for start, needle in anchored[int(words[index])]:
                begin = offset + WORD * index - start
                if begin >= 0 and text.startswith(needle, begin):
                    return True
    return False
