"""Forecast of the memory that a run will need, and how many client processes fit.

Features are counted for every model and size (`fl_ppseg.experiment.activations`); the memory of a
process before it computes was measured. tests/experiment/test_memory_forecast.py compares it with
real runs: within TOLERANCE of the peak of a local update.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config, ModelConfig
from fl_ppseg.crypto.arm_models import model_settings
from fl_ppseg.experiment.activations import ITEM_BYTES, scoring_bytes, training_bytes
from fl_ppseg.setr.sizes import num_elements, tensor_shapes
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import available_cpus

PROCESS_BYTES: Final = 450 * 2**20
"""Bytes of a process that has loaded torch, timm and Flower, before it computes."""
RAY_BYTES: Final = 700 * 2**20
"""Ray's own processes and its object store, filled."""
TOLERANCE: Final = 0.25
"""Largest error of a forecast, as a share of the measured peak of a local update; with gradient
checkpointing it was a third."""
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
    """One process that trains and scores clients."""
    server: int
    """The server's tensors, without its process."""
    num_processes: int
    """Number of client processes at the same time."""
    fixed: int
    """Memory of the engine."""
    checkpointed: int | None = None
    """One process with gradient checkpointing; None: it is on, or saves nothing."""

    @property
    def total(self) -> int:
        """Of all processes together."""
        return self.process * self.num_processes + self.server + self.fixed

    def __str__(self) -> str:
        """A line of how much, and of what it is the sum."""
        number = self.num_processes
        each = f"{number} client process{'es' if number > 1 else ''} of {gigabytes(self.process)}"
        rest = gigabytes(self.server + self.fixed)
        return f"about {gigabytes(self.total)} ({each}, {rest} for server and engine)"


class Fit(NamedTuple):
    """How many client processes a machine has the memory for."""

    num_processes: int
    note: str | None
    """What to know and what to change, in a line; None: all fit."""


def forecast(config: Config, num_classes: int) -> Forecast:
    """The memory that a run on the CPUs of this machine needs, in the arm that needs most.

    Args:
        config: The experiment.
        num_classes: Channels of the scores.

    Raises:
        InputError: As `model_settings` and `tensor_shapes`.
    """
    models = {model_settings(config.model, *arm) for arm in arms_of(config).items()}
    size = config.data.image_size
    weights = ITEM_BYTES * max(
        num_elements(tensor_shapes(model, num_classes, size)) for model in models
    )
    process, checkpointed = (
        max(_process(config, model, num_classes, checkpointed=is_on) for model in models)
        for is_on in (False, True)
    )
    server = SERVER_COPIES * weights
    saved = checkpointed if checkpointed < process else None
    if config.engine != "ray":
        return Forecast(process, server, 1, 0, saved)
    num = min(config.num_workers or available_cpus(), config.clients)
    return Forecast(process, server, num, PROCESS_BYTES + RAY_BYTES, saved)


def fit_memory(need: Forecast, num_bytes: int, free_bytes: int, *, is_chosen: bool = False) -> Fit:
    """Compare a forecast with the memory there is.

    Args:
        need: Of `forecast`.
        num_bytes: Memory of the machine.
        free_bytes: Free memory.
        is_chosen: Whether the user chose the number of client processes: it is kept then.

    Returns:
        The number of client processes that fit, at least one, and a note if these are fewer than
        forecast, or if those that were chosen or even one may not fit.

    Raises:
        InputError: One process alone, or the number that was chosen, needs more than the machine
            has, whatever the tolerance.
    """
    one, number = need.process + need.server + need.fixed, need.num_processes
    fitting = max(1, min(number, (free_bytes - need.server - need.fixed) // need.process))
    if one * (1 - TOLERANCE) > num_bytes:
        raise InputError(
            f"training needs about {gigabytes(one)} in one process, and this machine has "
            f"{gigabytes(num_bytes)}; choose {_smaller(need)}"
        )
    if is_chosen and need.total * (1 - TOLERANCE) > num_bytes:
        raise InputError(
            f"num_workers {number} needs {need}, and this machine has {gigabytes(num_bytes)}; "
            f"choose num_workers={fitting}, {_smaller(need)}"
        )
    if need.total <= free_bytes:
        return Fit(number, None)
    said = f"this run needs {need}, and {gigabytes(free_bytes)} are free"
    if is_chosen or fitting == number:
        fewer = f" --set num_workers={fitting}," if fitting < number else ""
        return Fit(number, f"{said}; if it is killed, choose{fewer} {_smaller(need)}")
    return Fit(
        fitting,
        f"{said}: at most {fitting} at a time will run; for more of them choose "
        f"{_smaller(need)}, or set num_workers",
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


def gigabytes(num_bytes: int) -> str:
    """Bytes in words.

    >>> gigabytes(4_260_000_000)
    '4.3 GB'
    """
    return f"{num_bytes / 1e9:.1f} GB"


def _process(config: Config, model: ModelConfig, num_classes: int, *, checkpointed: bool) -> int:
    """Bytes of a process that trains and then scores a client."""
    size, training = config.data.image_size, config.training
    weights = ITEM_BYTES * num_elements(tensor_shapes(model, num_classes, size))
    if checkpointed:
        training = training.model_copy(update={"gradient_checkpointing": True})
    features = 0
    if config.device == "cpu":
        features = max(
            training_bytes(model, training, num_classes, size),
            scoring_bytes(model, num_classes, size, config.data.view_size),
        )
    return PROCESS_BYTES + weights * COPIES[training.optimizer] + features


def _smaller(need: Forecast) -> str:
    """What needs less memory."""
    others = "a smaller training.batch_size, data.image_size or model"
    if need.checkpointed is None:
        return others
    each = gigabytes(need.checkpointed)
    return f"training.gradient_checkpointing=true ({each} a process), or {others}"
