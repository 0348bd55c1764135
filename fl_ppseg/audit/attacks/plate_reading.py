"""Reading number plates: a network that learns from crops whose plates the adversary wrote itself.

Adversary: holds crops around plates as it sees or restores them, and crops of its own with their
truth, seen in the same way; no key, and no truth of the targets.
Method: one classifier for all characters of a plate. Each looks where it expects its character, a
place that shifts with what the columns hold, so that all six learn from each other.
Must read plates of plain crops; reads no more than chance from crops that hold no plate.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_ppseg.audit.attacks.crop_network import STRIDE, WIDTH, Columns
from fl_ppseg.audit.attacks.reader import AT_ONCE, Budget, Planes

Truths = npt.NDArray[np.int64]
"""(n, K), for each of K characters its number in the alphabet."""

PEAK_RATE: Final = 3e-3
SPREAD: Final = 1.5
"""Columns around a character's usual place at which a new network looks."""


class PlateReader(nn.Module):
    """(B, C, H, W) uint8 -> (B, K, A) scores of A characters at K places."""

    def __init__(
        self,
        columns: Columns,
        num_columns: int,
        margin: float,
        num_characters: int,
        alphabet: int,
    ) -> None:
        super().__init__()
        self.columns = columns
        pitch = (1 - 2 * margin) / num_characters
        usual = (margin + (torch.arange(num_characters) + 0.5) * pitch) * num_columns
        far = (torch.arange(num_columns) + 0.5 - usual[:, None]) / SPREAD
        self.usual = nn.Parameter(-0.5 * far.square())
        self.look = nn.Conv1d(WIDTH, num_characters, 1)
        self.tell = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, alphabet))

    def forward(self, crops: Tensor) -> Tensor:
        """Read."""
        columns = self.columns(crops)
        where = (self.look(columns) + self.usual).softmax(dim=-1)  # B K W/4
        scores: Tensor = self.tell(where @ columns.transpose(1, 2))
        return scores


def read_plates(
    own: Planes,
    truths: Truths,
    targets: Planes,
    *,
    alphabet: int,
    block_size: int,
    budget: Budget,
) -> Truths:
    """Learn from one's own crops, and read the targets.

    Args:
        own: (n, C, H, W) uint8, C 3 or 6: a picture, and sorted blocks beside it.
        truths: (n, K), what stands on them.
        targets: (m, C, H, W) uint8.
        alphabet: Number of different characters.
        block_size: Side M of a block in pixels, a multiple of 4.
        budget: Of the training.

    Returns:
        (m, K), the likeliest character of each place.
    """
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(budget.seed)
        size = own.shape[2], own.shape[3]
        columns = Columns(own.shape[1], size, block_size)
        margin = min(0.1, block_size / size[1])
        reader = PlateReader(columns, size[1] // STRIDE, margin, truths.shape[1], alphabet)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=PEAK_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, budget.steps)
    rng = np.random.default_rng(budget.seed)
    for step in range(1, budget.steps + 1):
        chosen = rng.integers(len(own), size=budget.batch)
        scores = reader(torch.from_numpy(own[chosen]))
        loss = functional.cross_entropy(
            scores.flatten(0, 1), torch.from_numpy(truths[chosen]).flatten()
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if budget.on_step is not None:
            budget.on_step(step, budget.steps)
    with torch.inference_mode():
        parts = (
            torch.from_numpy(targets[k : k + AT_ONCE]) for k in range(0, len(targets), AT_ONCE)
        )
        read: Truths = torch.cat([reader(part).argmax(dim=-1) for part in parts]).numpy()
    return read
