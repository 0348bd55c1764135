"""Neurons of imprinted weights: which one belongs to which block and threshold, and its change.

All MLPs of the encoder form one row of neurons: threshold by threshold, and in each block by block.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from fl_ppseg.audit.attacks.gradients import gradient_of
from fl_ppseg.audit.attacks.inputs import Floats
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.system.arrays import Arrays

_NEURONS: Final = re.compile(r"\.mlp\.fc1\.")
_READ: Final = re.compile(rf"backbone\.(?!blocks)|\.blocks\.0\.|{_NEURONS.pattern}")
"""Names of the tensors that the attack reads: all before the second layer, and the neurons."""
_LEAST: Final = 1e-6
"""Share of the largest sum above which a difference of neighbours is not a rounding error."""


def kept(exchange: Exchange) -> Exchange:
    """An exchange with only those tensors that the attack reads."""
    sent = {name: value for name, value in exchange.sent.items() if _READ.search(name)}
    moved = {name: value for name, value in exchange.returned.items() if _NEURONS.search(name)}
    return replace(exchange, sent=sent, returned=moved)


def num_thresholds(arrays: Arrays, num_blocks: int) -> int:
    """The number of neurons per block."""
    return sum(len(arrays[name]) for name in mlps(arrays, "fc1.weight")) // num_blocks


def moved(exchange: Exchange, name: str, num_blocks: int) -> Floats:
    """(T, N, ...), the change of the neurons' weights or biases."""
    before, after = (rows(a, name, num_blocks) for a in (exchange.sent, exchange.returned))
    return after - before


def rows(arrays: Arrays, name: str, num_blocks: int) -> Floats:
    """(T, N, ...), the neurons' weights or biases in their order; T thresholds."""
    rows = np.concatenate([arrays[layer] for layer in mlps(arrays, f"fc1.{name}")])
    number = len(rows) // num_blocks
    shaped = rows[: number * num_blocks].reshape(number, num_blocks, *rows.shape[1:])
    return shaped.astype(np.float64)


def gaps(sums: Floats) -> Floats:
    """(T, ...), sums over images above each threshold -> sums over images in each gap."""
    return np.stack([*(low - high for low, high in pairwise(sums)), sums[-1]])


def gaps_within(exchange: Exchange, name: str, num_blocks: int) -> Floats:
    """(G, N, ...), differences of neighbouring thresholds within each layer, of the gradients of
    the neurons' weights or biases; G gaps of all layers, N blocks."""
    found = []
    for layer in mlps(exchange.sent, f"fc1.{name}"):
        gradient = gradient_of(exchange, layer).value
        number = len(gradient) // num_blocks
        shaped = gradient[: number * num_blocks].reshape(number, num_blocks, *gradient.shape[1:])
        found.append(shaped[:-1] - shaped[1:])
    return np.concatenate(found)


def mlps(names: Iterable[str], part: str) -> list[str]:
    """A tensor of every layer's MLP, from the first layer."""
    found = [name for name in names if name.endswith(f".mlp.{part}")]
    return sorted(found, key=lambda name: int(re.findall(r"\d+", name)[0]))


def is_held(totals: Floats) -> npt.NDArray[np.bool_]:
    """(T, N) -> (T,), whether any image is in a gap."""
    sums = np.abs(totals).sum(axis=1)
    held: npt.NDArray[np.bool_] = sums > _LEAST * sums.max()
    return held
