"""Known plaintext: the plain image of one or two ciphertexts is known.

Adversary: holds the ciphertexts, and has found, photographed or guessed a few of the images.
Method: a column holds the values of one position of a block over all known blocks. Encryption
permutes columns; it keeps each column, inverts all of it, or substitutes its values by one
codebook. So columns are compared by what is invariant to that: the bytes, the bytes up to
inversion, or which of them are equal. Columns that agree are matched, and the maps of values follow
from the pairs. Permutations alone fall to ceil(log_256 L) known plaintexts (Li et al., Signal
Processing: Image Communication 23, 2008). Equal columns tie, and are matched in order of position.
Must succeed exactly under a reused key: with block scope `common` from one image of about a hundred
blocks; with scope `per-block`, where a column has one byte per image, from two or three images.
Must fail if no other image has the key of the known one.
"""

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from fl_ppseg.audit.attacks.undoing import (
    IDENTITY,
    INVERSION,
    Algorithm,
    Images,
    KeyGuess,
    Undoing,
    completed,
    stacked,
    values_of_pixels,
)
from fl_ppseg.data.blocks import to_blocks

Columns = npt.NDArray[np.uint8]
"""(S, L) uint8, the values at the L positions of S blocks under one draw of the key."""


def match_known(
    ciphertexts: Images,
    known_plain: Images,
    known_encrypted: Images,
    *,
    block_size: int,
    algorithm: Algorithm,
    per_block: bool = False,
) -> KeyGuess:
    """Recover a reused key from known pairs, and decrypt further images.

    Args:
        ciphertexts: (n, 3, H, W), further images under the key of the known ones.
        known_plain: (k, 3, H, W).
        known_encrypted: The same images, encrypted.
        block_size: Side M of a block in pixels.
        algorithm: What the cipher may do.
        per_block: Whether the block scope is `per-block`, with the draws reused in all images.

    Returns:
        The reconstructions and the key; the confidence is the share of positions that are
        determined: each column of a tie of m counts 1/m, a codebook counts the share of its 256
        values that occurred.
    """
    plain, encrypted = (
        _columns(images, block_size, per_block) for images in (known_plain, known_encrypted)
    )
    rows = [_solve(*pair, algorithm) for pair in zip(plain, encrypted, strict=True)]
    index, which, maps, settled = zip(*rows, strict=True)
    undoing = Undoing(np.stack(index), np.stack(which), stacked(maps))
    return KeyGuess(undoing.reconstruct(ciphertexts, block_size), undoing, float(np.mean(settled)))


def _columns(images: Images, block_size: int, per_block: bool) -> Columns:
    """(k, 3, H, W) -> (R, S, L): all blocks under one draw, or a draw for each block."""
    blocks = to_blocks(images, block_size)  # k N L
    return blocks.swapaxes(0, 1) if per_block else blocks.reshape(1, -1, blocks.shape[-1])


def _solve(
    plain: Columns, encrypted: Columns, algorithm: Algorithm
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.uint8], float]:
    """(S, L) twice -> index (L,), which (L,), maps (K, 256) of one draw, and its confidence."""
    index, sureness = _match(plain, encrypted, algorithm)
    source = plain[:, index]
    which = (_errors(255 - source, encrypted) < _errors(source, encrypted)).astype(np.intp)
    which *= algorithm.inverts
    maps, met = np.stack([IDENTITY, INVERSION]), np.ones(2)
    if algorithm.substitutes:
        which, maps, met = _read_codebooks(source, encrypted, which)
    return index, which, maps, float(np.mean(sureness * met[which]))


def _errors(guess: Columns, truth: Columns) -> npt.NDArray[np.intp]:
    """(S, L) twice -> (L,), the number of values of each column that differ."""
    errors: npt.NDArray[np.intp] = (guess != truth).sum(axis=0)
    return errors


def _match(
    plain: Columns, encrypted: Columns, algorithm: Algorithm
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """(S, L) twice -> (L,) source of each column, (L,) confidence: 1, or 1/m in a tie of m."""
    num_values = plain.shape[1]
    if algorithm.moves == "nothing":
        return np.arange(num_values), np.ones(num_values)
    sources = defaultdict(list)
    for place, name in enumerate(_names(plain, algorithm)):
        sources[name].append(place)
    names = _names(encrypted, algorithm)
    sureness = np.array([1 / len(sources[name]) if name in sources else 0.0 for name in names])
    waiting = {name: iter(places) for name, places in sources.items()}
    guesses = [next(waiting.get(name, iter(())), -1) for name in names]
    index = completed(np.array(guesses, np.intp))
    if algorithm.moves == "pixels":
        return values_of_pixels(index), np.tile(sureness, 3)
    return index, sureness


def _names(columns: Columns, algorithm: Algorithm) -> list[bytes]:
    """(S, L) -> for each value, or pixel, what of its column is invariant to encryption."""
    if algorithm.substitutes:
        columns = np.stack([_pattern(column) for column in columns.T], axis=1)
    elif algorithm.inverts:
        columns = np.where(columns[0] < 128, columns, 255 - columns)
    if algorithm.moves == "pixels":
        columns = columns.reshape(len(columns) * 3, -1)  # S (3 P) -> (S 3) P
    return [column.tobytes() for column in columns.T]


def _pattern(column: Columns) -> Columns:
    """(S,) -> (S,), values numbered by first occurrence: invariant to any codebook."""
    _, first, inverse = np.unique(column, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse].astype(np.uint8)


def _read_codebooks(
    plain: Columns, encrypted: Columns, which: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Group positions by the map that their pairs of values satisfy, one map after another.

    Args:
        plain: (S, L).
        encrypted: (S, L) of the same positions.
        which: (L,) 1 where inversion explains more pairs than identity, else 0.

    Returns:
        (L,) the map of each position; (K, 256) the maps; (K,) the share of each map that occurred.
    """
    maps = [IDENTITY.astype(np.int16), INVERSION.astype(np.int16)]
    which = which.copy()
    for place, (source, value) in enumerate(zip(plain.T, encrypted.T, strict=True)):
        if np.array_equal(maps[which[place]][value], source):
            continue
        found = [k for k, table in enumerate(maps) if k > 1 and _agrees(table, value, source)]
        if not found:
            maps.append(np.full(256, -1, np.int16))
        which[place] = found[0] if found else len(maps) - 1
        maps[which[place]][value] = source
    return (
        which,
        np.stack([_filled(table) for table in maps]),
        np.array([(t >= 0).mean() for t in maps]),
    )


def _agrees(table: npt.NDArray[np.int16], value: Columns, source: Columns) -> bool:
    """Whether pairs of values are consistent with the known entries of a codebook."""
    known = table[value]
    return bool(((known == source) | ((known < 0) & ~np.isin(source, table))).all())


def _filled(table: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """(256,) codebook, -1 where unknown -> (256,), the mean of the unused values there."""
    left = np.setdiff1d(IDENTITY, table)
    return np.where(table < 0, left.mean() if left.size else 0, table).astype(np.uint8)
