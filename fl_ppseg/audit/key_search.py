"""Is there a key in it? Artefacts are searched for key material, byte by byte, at every offset.

Needles are keys, the beginnings of permutations and of embeddings, as raw bytes and as hex, base64
and decimal text. Haystacks are bytes: messages, files, what is in a container of files.
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
"""Bytes of a needle that are looked up in the haystack; no needle may be shorter."""


def needles_of_key(secret: bytes) -> Iterator[bytes]:
    """A secret as raw bytes, hex, base64 wherever it stands in what was encoded, and decimal.

    Decimal is one number a byte, as `numbers_in` renders lists, or one number, either end first.
    """
    yield from encodings(secret)
    yield decimal(list(secret))
    for order in ("big", "little"):
        yield str(int.from_bytes(secret, order)).encode()


def needles_of_permutation(permutation: Integers) -> Iterator[bytes]:
    """How a permutation and its inverse begin: integers of any usual size, raw, hex or base64.

    And as decimal text, the way `numbers_in` renders all layouts of it. The inverse is what sorts:
    of a codebook the inverse too, of a mask the places that are not chosen, then those that are.

    Args:
        permutation: (L,) integers.
    """
    for order in (permutation, np.argsort(permutation, kind="stable")):
        begin = order[:64]  # of a restricted shuffle most values stay: less might be 0, 1, 2, ...
        for dtype in ("uint8", "<u2", ">u2", "<i4", ">i4", "<i8", ">i8"):
            yield from encodings(begin.astype(dtype).tobytes())
        yield decimal(begin.tolist())


def needles_of_embedding(weight: npt.NDArray[np.floating[Any]]) -> Iterator[bytes]:
    """A patch embedding or its bias, whichever way it lies in memory.

    Every row and every column by how it begins: raw in half, single and double precision, and the
    single one as text.

    Args:
        weight: (D, L), or a bias (1, D).
    """
    for layout in (weight, weight.T) if len(weight) > 1 else (weight,):
        for dtype in ("<f2", "<f4", "<f8"):
            for row in layout.astype(dtype):
                begin = row.tobytes()[:48]
                yield from encodings(begin) if dtype == "<f4" else (begin,)


def encodings(raw: bytes) -> Iterator[bytes]:
    """Bytes as they are, as hex, and as base64 wherever they stand in what was encoded."""
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for skip in range(3):
        whole = base64.b64encode(bytes(skip) + raw)
        start, end = -(-8 * skip // 6), (8 * (skip + len(raw))) // 6
        yield whole[start:end]
        yield whole[start:end].translate(bytes.maketrans(b"+/", b"-_"))


def decimal(numbers: Iterable[int]) -> bytes:
    """Numbers as `numbers_in` renders them, whatever stood between them."""
    return " ".join(map(str, numbers)).encode()


def numbers_in(text: bytes) -> bytes:
    """The runs of digits alone, a space between any two: JSON, YAML and tables look the same."""
    return b" ".join(text.translate(TO_SPACES).split())


def search(haystacks: Iterable[tuple[str, bytes]], needles: Iterable[bytes]) -> set[str]:
    """Names of the haystacks that hold a needle, at any offset, as they are or as numbers.

    Args:
        haystacks: Names and bytes, taken one at a time.
        needles: Each of `WORD` bytes or more.
    """
    anchored: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for needle in needles:
        start = anchor(needle)
        word = int.from_bytes(needle[start : start + WORD], "little")
        anchored[word].append((start, needle))
    wanted = np.array(sorted(anchored), "<u8")
    return {
        name
        for name, text in haystacks
        if any(_holds(form, wanted, anchored) for form in (text, numbers_in(text)))
    }


def anchor(needle: bytes) -> int:
    """Where those 8 bytes near a needle's start begin that are least like padding."""
    return max(
        range(min(64, len(needle) - WORD + 1)),
        key=lambda start: len(set(needle[start : start + WORD])),
    )


def _holds(
    text: bytes,
    wanted: npt.NDArray[np.uint64],
    anchored: Mapping[int, list[tuple[int, bytes]]],
) -> bool:
    """Whether bytes hold one of the needles whose anchors, in rising order, are `wanted`."""
    if not len(wanted):
        return False
    for offset in range(min(WORD, max(0, len(text) - WORD + 1))):
        words = np.frombuffer(text, "<u8", (len(text) - offset) // WORD, offset)
        places = wanted.searchsorted(words).clip(max=len(wanted) - 1)
        for index in np.flatnonzero(wanted[places] == words).tolist():
            for start, needle in anchored[int(words[index])]:
                begin = offset + WORD * index - start
                if begin >= 0 and text.startswith(needle, begin):
                    return True
    return False
