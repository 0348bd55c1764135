"""Naming faces: a network that learns which crop and which photograph show one person.

Adversary: holds crops around faces as it sees or restores them, plain photographs of people among
whom those of the crops are, and of people of its own a crop seen in the same way and another
photograph each; no key.
Method: two networks bring crops and photographs to one space, in which those of one person lie
closer than those of two (the contrast of a batch: van den Oord et al. 2018, "InfoNCE").
Must name faces in plain crops; names no more than chance where crops show other people.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_ppseg.audit.attacks.crop_network import WIDTH, Columns
from fl_ppseg.audit.attacks.reader import AT_ONCE, Budget, Planes

Places = npt.NDArray[np.int64]
"""(m,), for each target its place among the photographs."""

PEAK_RATE: Final = 2e-3
SHARPNESS: Final = 12.0
"""Scale of the cosines."""


class Likeness(nn.Module):
    """(B, C, H, W) uint8 -> (B, WIDTH), of length 1."""

    def __init__(self, channels: int, size: tuple[int, int], block_size: int) -> None:
        super().__init__()
        self.columns = Columns(channels, size, block_size)
        self.tell = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, crops: Tensor) -> Tensor:
        """Place crops among each other."""
        columns = self.columns(crops)
        both = torch.cat([columns.mean(dim=-1), columns.amax(dim=-1)], dim=1)
        return functional.normalize(self.tell(both), dim=1)


def match_faces(
    own: Planes,
    photographs: Planes,
    targets: Planes,
    known: Planes,
    *,
    block_size: int,
    budget: Budget,
) -> Places:
    """Learn from one's own people, and find the targets among those who are known.

    Args:
        own: (n, C, H, W) uint8 crops of n people of one's own, C 3 or 6.
        photographs: (n, 3, H, W) uint8, another photograph of each, plain.
        targets: (m, C, H, W) uint8 crops.
        known: (k, 3, H, W) uint8 plain photographs.
        block_size: Side M of a block in pixels, a multiple of 4.
        budget: Of the training.
    """
    size = own.shape[2], own.shape[3]
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(budget.seed)
        of_crops = Likeness(own.shape[1], size, block_size)
        of_photographs = Likeness(photographs.shape[1], size, block_size)
    both = nn.ModuleList([of_crops, of_photographs])
    optimizer = torch.optim.AdamW(both.parameters(), lr=PEAK_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, budget.steps)
    rng = np.random.default_rng(budget.seed)
    for step in range(1, budget.steps + 1):
        chosen = rng.choice(len(own), size=min(budget.batch, len(own)), replace=False)
        crops = of_crops(torch.from_numpy(own[chosen]))
        pictures = of_photographs(torch.from_numpy(photographs[chosen]))
        alike, pairs = SHARPNESS * crops @ pictures.T, torch.arange(len(chosen))
        loss = functional.cross_entropy(alike, pairs) + functional.cross_entropy(alike.T, pairs)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if budget.on_step is not None:
            budget.on_step(step, budget.steps)
    with torch.inference_mode():
        people = of_photographs(torch.from_numpy(known))
        parts = (
            torch.from_numpy(targets[k : k + AT_ONCE]) for k in range(0, len(targets), AT_ONCE)
        )
        named: Places = torch.cat(
            [(of_crops(part) @ people.T).argmax(dim=1) for part in parts]
        ).numpy()
    return named
