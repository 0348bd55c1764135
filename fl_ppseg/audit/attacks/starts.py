"""Networks that the package ships, from which the attacks that learn start.

Each was trained to restore drawn scenes of public cities, whose images no client holds, from one
kind of input (`benchmarks/starting_networks.py`): a canonical form, or a label map painted in the
mean colour of each class. So an attacker who has a day and no images of the owners' streets is in
the audit without the audit taking a day.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from fl_ppseg.audit.attacks.network import Reader
from fl_ppseg.setr.shipped import WEIGHTS

LABEL_MAP: Final = "label-map"
"""Input of a network that sees painted label maps and no ciphertext."""
STEPS: Final = "steps"
"""Of the metadata: how many steps of training."""
_PLACE: Final = "place"


def start_file(reads: str, block_size: int) -> Path:
    """Where the network for blocks of `block_size` pixels is, if the package has one."""
    return WEIGHTS / f"restorer_{reads}_{block_size}.safetensors"


def steps_before(reads: str | None, block_size: int) -> int:
    """Steps that the shipped network was trained for; 0 where there is none."""
    if reads is None or not start_file(reads, block_size).is_file():
        return 0
    with safe_open(start_file(reads, block_size), "pt") as file:
        return int(file.metadata()[STEPS])


def load_start(reader: Reader, reads: str) -> bool:
    """Load the shipped network into a reader, and return whether there is one.

    The reader's first input channels must be those that the network was trained on. Weights of
    further channels are zero, so at first the reader restores what the network restores. The
    positions of another grid are interpolated.

    Args:
        reader: Changed in place.
        reads: What it reads: a canonical form, or `LABEL_MAP`.
    """
    file = start_file(reads, reader.block_size)
    if not file.is_file():
        return False
    reader.load_state_dict(_fitted(load_file(file), reader.state_dict()))
    return True


def _fitted(shipped: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The shipped tensors in the shapes of a reader's own."""
    fitted = {}
    for name, like in own.items():
        value = shipped[name].float()
        if name == _PLACE and value.shape != like.shape:
            value = functional.interpolate(value, like.shape[2:], mode="bicubic")
        elif value.shape != like.shape:  # the last channels of the input, of which it has fewer
            value = functional.pad(value, (0, 0, 0, 0, 0, like.shape[1] - value.shape[1]))
        fitted[name] = value
    return fitted
