"""Where everything lies in a run's folder: names alone, for all who read or write there.

config.yaml  partition.json  log.txt  results.jsonl  summary.json  report.html  figures/
nodes.json                                 (name of the run: see fl_ppseg.federation.run_identity)
no_image.png                               (simulations: see fl_ppseg.learning.no_image)
val_images.safetensors                     (simulations: see fl_ppseg.experiment.val_counts)
progress.jsonl                             (deployed runs: events of the live view)
profile.json                               (simulate --profile: fl_ppseg.federation.profile)
tensorboard/<arm>/seed_<s>/                (with --observer tensorboard: event files)
clients.json                                (deployed runs: see fl_ppseg.deployment.clients)
cohort.json                         (secure aggregation: see fl_ppseg.federation.cohort_keys)
<arm>/seed_<s>/round_<nnnn>.safetensors + .json      (rotated, hashed)
<arm>/seed_<s>/releases.txt                          (private runs: a round a line)
<arm>/seed_<s>/sums.jsonl                            (secure aggregation: whose updates, by round)
audit/leaks.json  audit/report.html  audit/figures/  (what an audit of the run found)
identity.json  identity.html                 (in the folder of an audit of identity)
cells.json  index.html  <cell>/                      (a comparison of cells, a run folder each)

Needs the standard library alone.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CONFIG: Final = "config.yaml"
PARTITION: Final = "partition.json"
LOG: Final = "log.txt"
PROGRESS: Final = "progress.jsonl"
PROFILE: Final = "profile.json"
TENSORBOARD: Final = "tensorboard"
RESULTS: Final = "results.jsonl"
SUMMARY: Final = "summary.json"
REPORT: Final = "report.html"
FIGURES: Final = "figures"
NODES: Final = "nodes.json"
NO_IMAGE: Final = "no_image.png"
VAL_IMAGES: Final = "val_images.safetensors"
CLIENTS: Final = "clients.json"
COHORT: Final = "cohort.json"
AUDIT: Final = "audit"
LEAKS: Final = "leaks.json"
IDENTITY: Final = "identity.json"
IDENTITY_PAGE: Final = "identity.html"
CELLS: Final = "cells.json"
INDEX: Final = "index.html"
TAKEN: Final = frozenset(
    {
        CONFIG, PARTITION, LOG, PROGRESS, RESULTS, SUMMARY, REPORT, FIGURES, NODES, NO_IMAGE,
        VAL_IMAGES, CLIENTS, COHORT, AUDIT, CELLS, INDEX, TENSORBOARD, PROFILE,
    }
)  # fmt: skip
"""What lies beside the folders of arms or cells, which can have none of these names."""
RELEASES: Final = "releases.txt"
SUMS: Final = "sums.jsonl"
CHECKPOINTS: Final = "*/seed_*"
"""Folders of checkpoints, as a pattern."""

_ROUND: Final = re.compile(r"round_([0-9]{4,9})")


def seed_folder(run: Path, arm: str, seed: int) -> Path:
    """Folder of the checkpoints of an arm and seed."""
    return run / arm / f"seed_{seed}"


def run_of(file: Path) -> Path:
    """The run folder that a checkpoint's file lies in."""
    return file.absolute().parents[2]


def round_file(folder: Path, number: int) -> Path:
    """The tensors of a round; what describes them lies beside it, as .json."""
    return folder / f"round_{number:04d}.safetensors"


def round_of(file: Path) -> int | None:
    """The round in the name of a file; None if it has none.

    >>> round_of(Path("plain/seed_0/round_0012.json")), round_of(Path("round_last.json"))
    (12, None)
    """
    found = _ROUND.fullmatch(file.stem)
    return None if found is None else int(found[1])


def rounds_in(folder: Path, suffix: str) -> list[Path]:
    """Files of rounds with this suffix in a folder, by round: round 10000 is after 9999."""
    return [file for _, file in sorted(_numbered(folder, suffix))]


def _numbered(folder: Path, suffix: str) -> Iterator[tuple[int, Path]]:
    for file in folder.glob(f"round_*{suffix}"):
        if (number := round_of(file)) is not None:
            yield number, file
