"""Forecast of the memory that a run will need.

Tensors kept for the backward pass are counted on torch's `meta` device, for every model and size;
the memory of a process before it computes was measured. tests/experiment/test_memory_forecast.py
compares it with real runs: within TOLERANCE of the peak of a local update.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from fl_ppseg.config.sections import Config
from fl_ppseg.experiment.activations import ITEM_BYTES, training_bytes
from fl_ppseg.setr.sizes import num_elements, tensor_shapes
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import available_cpus

PROCESS_BYTES: Final = 450 * 2**20
"""Bytes of a process that has loaded torch, timm and Flower, before it computes."""
RAY_BYTES: Final = 700 * 2**20
"""Ray's own processes and its object store, filled."""
TOLERANCE: Final = 0.25
"""Largest error of a forecast, as a share of the measured peak of a local update."""
COPIES: Final = {"adamw": 7, "sgd": 6}
"""Copies of the weights while a client trains: the model's, those received, gradients, the
optimiser's moments (two or one), and two of the reply, as tensors and packed."""
SERVER_COPIES: Final = 8
"""Of the weights on the server: the global ones, the fp64 sum, a reply, moments, a checkpoint."""

CGROUPS: Final = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Files in which Linux gives the limit and the use of a container's memory."""


@dataclass(frozen=True)
class Forecast:
    """Bytes that a run needs at its peak."""

    process: int
    """One process that trains a client."""
    server: int
    """The server's tensors, without its process."""
    num_processes: int
    """Number of processes that train at the same time."""
    fixed: int
    """Memory of the engine."""

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
        kept = training_bytes(config.model, config.training, num_classes, size)
    process = PROCESS_BYTES + weights * COPIES[config.training.optimizer] + kept
    server = SERVER_COPIES * weights
    if config.engine != "ray":
        return Forecast(process, server, 1, 0)
    num = min(config.num_workers or available_cpus(), config.clients)
    return Forecast(process, server, num, PROCESS_BYTES + RAY_BYTES)


def check_memory(need: Forecast, num_bytes: int, free_bytes: int) -> str | None:
    """Compare a forecast with the memory there is.

    Args:
        need: Of `forecast`.
        num_bytes: Memory of the machine.
        free_bytes: Free memory.

    Returns:
        A warning; None if the run fits.

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
    """Total and free memory for this process and its children, in bytes."""
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
