"""Limits of one request on a node's machine: memory, processors, time."""

import argparse
import math
import os
import resource
from dataclasses import dataclass
from typing import Self

from fl_ppseg.system.command_line import Parser
from fl_ppseg.system.errors import InputError

GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """Limits of each of a node's programs; exceeding one ends only that request."""

    memory: float = 8.0
    """GiB. A round of SETR-Naive with ViT-T and 64x128 takes below 1; with ViT-L and AdamW, five
    times the model (7 GiB) and its activations."""
    seconds: float = 3600.0
    """Time for a request, from its arrival to its answer."""
    cpus: int | None = None
    """Processors that the app computes on; None: all."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """The limits that a command's options give.

        Raises:
            InputError: They are out of range.
        """
        limits = cls(options.max_memory, options.max_seconds, options.max_cpus)
        for option, value in (("memory", limits.memory), ("seconds", limits.seconds)):
            if not 0 < value < 1e6:
                raise InputError(
                    f"--max-{option}: expected more than 0 and below 1e6, got {value:g}"
                )
        if limits.cpus is not None and limits.cpus < 1:
            raise InputError(f"--max-cpus: expected 1 or more, got {limits.cpus}")
        return limits

    def options(self) -> list[str]:
        """The options that pass these limits to another process."""
        cpus = [] if self.cpus is None else ["--max-cpus", str(self.cpus)]
        return ["--max-memory", f"{self.memory:g}", "--max-seconds", f"{self.seconds:g}", *cpus]

    def memory_with_margin(self) -> int:
        """GiB for a limit of the system's, which counts shared pages too."""
        return math.ceil(self.memory * 1.25) + 1

    def apply_memory(self) -> None:
        """Apply the limit of memory to this process and its children.

        Only private writable memory counts, not what is mapped: CUDA maps far more than it uses.
        """
        _lower(resource.RLIMIT_DATA, int(self.memory * GIB))

    def apply(self) -> None:
        """Apply the limits of memory, processor time and processors to this process."""
        if self.cpus is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: self.cpus])
        num_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        _lower(resource.RLIMIT_CPU, int(self.seconds * num_cpus) + 1)
        self.apply_memory()


USUAL = Limits()


def add_limits(parser: Parser) -> None:
    """Add the options of the limits."""
    usual, add = USUAL, parser.add_argument
    add(
        "--max-memory",
        type=float,
        default=usual.memory,
        metavar="GIB",
        help=f"memory of SuperNode and app each ({usual.memory:g} GiB; ViT-L needs 24 or more)",
    )
    add(
        "--max-seconds",
        type=float,
        default=usual.seconds,
        metavar="S",
        help=f"time per request ({usual.seconds:g} s)",
    )
    add("--max-cpus", type=int, default=usual.cpus, metavar="N", help="processors of the app (all)")


def _lower(which: int, value: int) -> None:
    """Lower a limit of this process; a lower existing one is kept."""
    _, most = resource.getrlimit(which)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(which, (value, value))
