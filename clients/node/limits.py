"""What one request may take of a node's machine: memory, processor, time."""

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
    """Of each of a node's programs; what a request takes beyond them ends that request alone."""

    memory: float = 8.0
    """GiB. A round of SETR-Naive with ViT-T and 64x128 takes below 1; with ViT-L and AdamW, the
    model five times over (7 GiB) and its activations."""
    seconds: float = 3600.0
    """Of a request, from its arrival to its answer."""
    cpus: int | None = None
    """Processors that the app computes on; none: all."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """Those of a command's options.

        Raises:
            InputError: They are out of bounds.
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
        """The options that give them to another process."""
        cpus = [] if self.cpus is None else ["--max-cpus", str(self.cpus)]
        return ["--max-memory", f"{self.memory:g}", "--max-seconds", f"{self.seconds:g}", *cpus]

    def memory_with_margin(self) -> int:
        """GiB that the system should give a program at most, shared pages included."""
        return math.ceil(self.memory * 1.25) + 1

    def apply_memory(self) -> None:
        """Keep this process, and all that it starts, below the memory.

        What is counted is what a process may write and has for itself, not what it maps: CUDA maps
        far more than it uses.
        """
        _lower(resource.RLIMIT_DATA, int(self.memory * GIB))

    def apply(self) -> None:
        """Keep this process below memory and processor time, on the processors that it may use."""
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
        help=f"memory of SuperNode and of app ({usual.memory:g} GiB; ViT-L wants 24 or more)",
    )
    add(
        "--max-seconds",
        type=float,
        default=usual.seconds,
        metavar="S",
        help=f"time for a request ({usual.seconds:g} s)",
    )
    add("--max-cpus", type=int, default=usual.cpus, metavar="N", help="processors of the app (all)")


def _lower(which: int, value: int) -> None:
    """Set a limit of this process; one that is lower already stays."""
    _, most = resource.getrlimit(which)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(which, (value, value))
