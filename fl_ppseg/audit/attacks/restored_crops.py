"""Crops around plates or faces as an adversary restores them from what survives a cipher.

Adversary: holds ciphertexts of the targets, so their canonical form, and draws crops of its own, in
other streets, with plates and faces whose truth it knows; no key.
Method: the survivor network learns to restore one half of its own crops. It then restores the other
half, which it has not learnt, and the targets: so the adversary has restorations with their truth,
as good or bad as those of the targets, from which to learn to read. What survives of each block
stands beside its restoration, sorted, for what the restoration lost.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from fl_ppseg.audit.attacks.reader import AT_ONCE, Budget, Planes, seen_of, to_bytes, train

CHANNELS: Final = 3
"""Of a sorted block in a canonical form; its gaps follow, and tell nothing more."""


def restored(
    own: Planes, targets: Tensor, form: str, *, block_size: int, budget: Budget
) -> tuple[Planes, Planes]:
    """Restore the second half of one's own crops, and the targets.

    Args:
        own: (n, 3, H, W) uint8, n at least 2.
        targets: (m, 6, H, W) float, the canonical form of the targets.
        form: Its name.
        block_size: Side M of a block in pixels.
        budget: Of the training.

    Returns:
        (n - n // 2, 6, H, W) and (m, 6, H, W) uint8: restorations, and the sorted blocks.
    """
    half = len(own) // 2

    def read(planes: Planes) -> Tensor:
        return seen_of(planes, form, block_size, raw=False)

    reader = train(own[:half], read, block_size, start=form, budget=budget)

    def restore(seen: Tensor) -> Planes:
        with torch.inference_mode():
            return to_bytes(torch.cat([reader(seen), seen[:, :CHANNELS]], dim=1))

    rest = (read(own[k : k + AT_ONCE]) for k in range(half, len(own), AT_ONCE))
    given = (targets[k : k + AT_ONCE] for k in range(0, len(targets), AT_ONCE))
    mine, theirs = ([restore(part) for part in parts] for parts in (rest, given))
    return np.concatenate(mine), np.concatenate(theirs)
