"""Chosen plaintext: the adversary has images of its choice encrypted under the owner's key.

Adversary: can have images encrypted under a reused key (a camera pointed at a screen, an upload
form in front of a vault) and holds ciphertexts of that key.
Method: images of one value show what that value becomes at every position; images whose pixels
encode their position in base 256 show where each came from (the probes of differential
cryptanalysis of permutation ciphers, Li et al. 2008). All probes go in one query.
Must succeed exactly under a reused key, whatever the block scope. Must fail with one key per image.
"""

from collections.abc import Callable

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
)
from fl_ppseg.data.blocks import Geometry, from_blocks, to_blocks


def match_chosen(
    ciphertexts: Images,
    oracle: Callable[[Images], Images],
    *,
    block_size: int,
    algorithm: Algorithm,
    per_block: bool = False,
) -> KeyGuess:
    """Recover a reused key from the encryption of probe images, and decrypt other images.

    Args:
        ciphertexts: (n, 3, H, W) under that key.
        oracle: Encrypts (k, 3, H, W) under that key; called once.
        block_size: Side M of a block in pixels.
        algorithm: What the cipher may do.
        per_block: Whether the block scope is `per-block`, with the draws reused in all images.

    Returns:
        The reconstructions and the key; the confidence is the share of positions that the probes
        identify exactly once.
    """
    geometry = Geometry.of_image(ciphertexts.shape[1:], block_size)
    num_levels = 256 if algorithm.substitutes else 1
    probes, shifts = _probes(geometry.block_length, num_levels)
    tiled = np.repeat(probes[:, None], geometry.num_blocks, axis=1)
    answers = to_blocks(oracle(from_blocks(tiled, geometry)), block_size)  # k N L
    answers = answers if per_block else answers[:, :1]
    found, moved = answers[:num_levels], answers[num_levels:]
    which, maps = zip(*(_maps(level, algorithm) for level in found.swapaxes(0, 1)), strict=True)
    tables = stacked(maps)
    rows = np.arange(len(tables))[:, None]
    spelt = tables[rows, np.stack(which), moved].astype(np.intp)
    named = (spelt << shifts[:, None, None]).sum(axis=0)  # R L
    named[named >= geometry.block_length] = -1
    index = np.stack([completed(row) for row in named])
    undoing = Undoing(index, np.stack(which), tables)
    reconstructed = undoing.reconstruct(ciphertexts, block_size)
    return KeyGuess(reconstructed, undoing, float(np.mean(index == named)))


def _probes(length: int, num_levels: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    """(k, L) blocks of one value 0..num_levels - 1, then digits of positions; the digits' bits."""
    shifts = np.arange(0, (length - 1).bit_length(), 8)
    digits = (np.arange(length) >> shifts[:, None]) & 255
    levels = np.repeat(np.arange(num_levels)[:, None], length, axis=1)
    return np.concatenate([levels, digits]).astype(np.uint8), shifts


def _maps(
    levels: npt.NDArray[np.uint8], algorithm: Algorithm
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]]:
    """(V, L) encrypted values of 0..V-1 -> (L,) the map of each position, (K, 256) the maps."""
    tables = np.stack([IDENTITY, INVERSION])
    if not algorithm.substitutes:
        return ((levels[0] >= 128) & algorithm.inverts).astype(np.intp), tables
    back = levels.argsort(axis=0).T.astype(np.uint8)
    numbers = {table.tobytes(): k for k, table in enumerate(tables)}
    which = [numbers.setdefault(table.tobytes(), len(numbers)) for table in back]
    maps = np.stack([np.frombuffer(table, np.uint8) for table in numbers])
    return np.array(which, np.intp), maps
