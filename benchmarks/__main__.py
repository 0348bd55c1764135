"""All performance benchmarks, one after the other, as one document.

    python -m benchmarks [--out benchmarks.md] [--only NAME ...]

Each runs as a process of its own, as its head says; a document holds hardware, versions and commit,
what each printed, and how long it took. One that fails is said to have failed, and the others run.
Those that need a GPU run dry without one. Benchmarks of attacks, leaks and faults are not among
them: they take hours, or need root, and are run by name.
"""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch

from fl_ppseg.system.files import available_cpus, write_atomically

HERE: Final = Path(__file__).parent
PACKAGES: Final = ("flwr", "numpy", "ray", "timm", "torch")
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "bench_encryption": (),
    "bench_setr": (),
    "bench_bf16": (),
    "bench_synthesize": (),
    "bench_simulation": (),
    "bench_flower_loop": ("--rounds", "3", "--repetitions", "2"),
    "bench_coordinator_memory": ("--model", "vit-base", "--rounds", "1"),
    "bench_clients": ("--clients", "10,100,300", "--rounds", "2"),
    "secure_aggregation": ("--nodes", "3,18,144", "--words", "1048576"),
    "bench_service": (),
    "bench_page": (),
    "bench_wire": (),
    "gpu": () if torch.cuda.is_available() else ("--dry",),
}


def heading() -> str:
    """Hardware, versions and commit."""
    call = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    commit = subprocess.run(call, capture_output=True, text=True).stdout.strip() or "unknown"
    names = " ".join(f"{name} {version(name)}" for name in PACKAGES)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        "# Benchmarks\n\n"
        f"{_processor()}, {available_cpus()} cores, {gpu}; Python {platform.python_version()}, "
        f"{names}; commit {commit}. Each ratio is of one run; "
        "other load on the machine distorts it.\n"
    )


def run(name: str, options: Sequence[str]) -> tuple[str, bool]:
    """A section on one benchmark, and whether it ended well."""
    start = time.perf_counter()
    command = [sys.executable, str(HERE / f"{name}.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    took = time.perf_counter() - start
    told, how = done.stdout, f"{took:.0f} s"
    if done.returncode:
        told, how = told + done.stderr[-2_000:], f"failed with status {done.returncode} after {how}"
    typed = " ".join(["python", f"benchmarks/{name}.py", *options])
    return f"\n## {name}\n`{typed}`, {how}\n\n```\n{told.rstrip()}\n```\n", not done.returncode


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=Path("benchmarks.md"))
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    options = parser.parse_args(argv)
    document, failed = heading(), []
    for name in options.only:
        print(f"{name} ...", flush=True)
        section, is_good = run(name, COMMANDS[name])
        failed += [] if is_good else [name]
        document += section
        write_atomically(options.out, document.encode())  # what was measured stays if it is stopped
    print(f"written: {options.out}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
