"""What came of a run, and how it differs from the undisturbed one."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fl_ppseg.config.loading import load_config
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.system.files import sha256

NEWS = ("! ", "error: ", "the server was lost", "not connected")
"""How lines begin that tell of more than the progress of a run."""


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    status: int
    """Exit status of the command `run`."""
    seconds: float
    lines: Counter[tuple[Any, ...]]
    """How often each line of results.jsonl is there."""
    digest: str
    """SHA-256 of the final weights; empty where there are none."""
    round_seconds: float
    """Mean over the rounds, as the server took it."""
    said: list[str] = field(default_factory=list)
    """What the command told a person of what went wrong."""


def read(folder: RunFolder, status: int, seconds: float, said: list[str]) -> Outcome:
    """What lies in a run folder of one arm and seed."""
    config = load_config(folder.config)
    (arm,), (seed,) = config.arms, config.seeds
    last = folder.path / arm / f"seed_{seed}" / f"round_{config.federation.num_rounds:04d}"
    weights = last.with_suffix(".safetensors")
    lines = folder.lines()
    rounds = [line["seconds"] for line in lines if line["role"] == "round" and line["round"]]
    return Outcome(
        status,
        seconds,
        Counter((x["round"], x["role"], x["client"], x.get("model")) for x in lines),
        sha256(weights) if weights.exists() else "",
        sum(rounds) / len(rounds) if rounds else float("nan"),
        [line for line in said if line.startswith(NEWS)],
    )


def told(outcome: Outcome, reference: Outcome) -> str:
    """The outcome in the words of the table."""
    ended = "ended by itself" if outcome.status == 0 else f"ended with status {outcome.status}"
    twice = sum(number - 1 for number in outcome.lines.values())
    missing = len(reference.lines.keys() - outcome.lines.keys())
    bits = "same bits" if outcome.digest == reference.digest else "other bits"
    return (
        f"{ended} after {clock(outcome.seconds)} in place of {clock(reference.seconds)}; "
        f"{bits} ({outcome.digest[:8] or 'no weights'}); {outcome.lines.total()} lines, "
        f"{twice or 'none'} twice, {missing or 'none'} missing"
    )


def clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> clock(297.3)
    '4:57'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
