"""Forecast of the memory that a run will need.

What training keeps for the backward pass is counted tensor by tensor on torch's `meta` device, so
it is right for every model and size; what a process takes before it computes is measured. Compared
with real runs in tests/experiment/test_memory_forecast.py: within TOLERANCE of the peak of a local
update.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import psutil
import torch
from torch import Tensor

from fl_ppseg.config.sections import Config, ModelConfig, TrainingConfig
from fl_ppseg.learning.losses import pixel_loss
from fl_ppseg.setr.model import assemble
from fl_ppseg.setr.sizes import num_elements, tensor_shapes
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import available_cpus

PROCESS_BYTES: Final = 450 * 2**20
"""Of a process that has loaded torch, timm and Flower, before it computes."""
RAY_BYTES: Final = 700 * 2**20
"""Ray's own processes and its object store, filled."""
GRADIENTS: Final = 1.4
"""What a step takes for what it keeps: gradients of features and the allocator's slack, measured at
1.3 to 1.5 on seven models from 1.3 to 90 million weights."""
SCRATCH_BYTES: Final = 40 * 2**20
"""Of torch's kernels."""
TOLERANCE: Final = 0.25
"""How far a forecast was at most from the peak of a local update, as a share of it."""
ITEM_BYTES: Final = 4
"""Weights and features are fp32."""
COPIES: Final = {"adamw": 7, "sgd": 6}
"""Of the weights while a client trains: the model's, those that came, gradients, the optimiser's
moments (two or one), and the two of the reply, as tensors and packed."""
SERVER_COPIES: Final = 8
"""Of the weights on the server: the global ones, the fp64 sum, a reply, moments, a checkpoint."""

CGROUPS: Final = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Where Linux says what a container may take, and takes."""


@dataclass(frozen=True)
class Forecast:
    """Bytes that a run will take at its peak."""

    process: int
    """One process that trains a client."""
    server: int
    """What the server holds, without its process."""
    num_processes: int
    """Processes that train at the same time."""
    fixed: int
    """What the engine takes beside."""

    @property
    def total(self) -> int:
        """Of all processes together."""
        return self.process * self.num_processes + self.server + self.fixed


def forecast(config: Config, num_classes: int) -> Forecast:
    """The memory that a run on the CPUs of this machine needs.

    Args:
        config: The experiment.
        num_classes: Channels of the scores.
    """
    size = config.data.image_size
    weights = ITEM_BYTES * num_elements(tensor_shapes(config.model, num_classes, size))
    kept = 0
    if config.device == "cpu":
        kept = activation_bytes(config.model, config.training, num_classes, size)
    process = PROCESS_BYTES + weights * COPIES[config.training.optimizer] + kept
    server = SERVER_COPIES * weights
    if config.engine != "ray":
        return Forecast(process, server, 1, 0)
    num = min(config.num_workers or available_cpus(), config.clients)
    return Forecast(process, server, num, PROCESS_BYTES + RAY_BYTES)


@lru_cache(maxsize=8)
def activation_bytes(
    model: ModelConfig, training: TrainingConfig, num_classes: int, image_size: tuple[int, int]
) -> int:
    """What one step of training keeps until its gradients are taken, and works with beside.

    Args:
        model: Section `model`.
        training: Section `training`: batch size and losses.
        num_classes: Channels of the scores.
        image_size: (height, width) in pixels.
    """
    sizes: dict[int, int] = {}
    held: list[Tensor] = []  # a storage that is freed may give its place to the next
    bare = model.model_copy(update={"pretrained": False, "weights": None})
    with torch.random.fork_rng(devices=()), torch.device("meta"):
        network = assemble(bare, num_classes, image_size).train()
        num_tokens = math.prod(network.grid)
        own = {tensor.untyped_storage()._cdata for tensor in network.state_dict().values()}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own and not _is_attention(tensor, num_tokens):
                sizes[storage._cdata] = storage.nbytes()
                held.append(tensor)
            return tensor

        images = torch.empty(training.batch_size, 3, *image_size)
        labels = torch.empty(training.batch_size, *image_size, dtype=torch.uint8)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            pixel_loss(network(images).main, labels, training)
    kept = sum(sizes.values()) + 2 * max(sizes.values(), default=0)
    return round(GRADIENTS * kept) + SCRATCH_BYTES


def check_memory(need: Forecast, num_bytes: int, free_bytes: int) -> str | None:
    """Compare a forecast with the memory there is.

    Args:
        need: Of `forecast`.
        num_bytes: What the machine has.
        free_bytes: What of it is free.

    Returns:
        A line that warns; None where the run fits.

    Raises:
        InputError: One process alone needs more than the machine has, whatever the tolerance.
    """
    one = need.process + need.server
    if one * (1 - TOLERANCE) > num_bytes:
        raise InputError(
            f"training needs about {_text(one)} in one process, and this machine has "
            f"{_text(num_bytes)}; choose a smaller training.batch_size, data.image_size or model"
        )
    if need.total <= free_bytes:
        return None
    left = free_bytes - need.server - need.fixed
    fitting = max(1, min(need.num_processes - 1, left // need.process))
    fewer = f" --set num_workers={fitting}, or" if need.num_processes > 1 else ""
    return (
        f"this run needs about {_text(need.total)} of memory ({need.num_processes} x "
        f"{_text(need.process)} to train), and {_text(free_bytes)} are free; if it is killed, "
        f"choose{fewer} a smaller training.batch_size, data.image_size or model"
    )


def machine_bytes() -> tuple[int, int]:
    """The memory that this process and its children may take in all, and what of it is free."""
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    for limit, used in CGROUPS:
        try:
            most = int(Path(limit).read_text("ascii"))
            taken = int(Path(used).read_text("ascii"))
        except (OSError, ValueError):  # no such file, or `max`: no limit
            continue
        total, free = min(total, most), min(free, most - taken)
    return total, free


def _text(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"


def _is_attention(tensor: Tensor, num_tokens: int) -> bool:
    """Whether it is of tokens by tokens, which the CPU's fused attention never keeps."""
    return tensor.ndim >= 3 and tensor.shape[-1] == tensor.shape[-2] >= num_tokens
