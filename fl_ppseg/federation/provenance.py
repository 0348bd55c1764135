"""Provenance of a result: version, commit and config, to reproduce it."""

import hashlib
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from fl_ppseg.config.loading import dump_config
from fl_ppseg.config.sections import Config
from fl_ppseg.system.version import VERSION

_CHECKOUT: Final = Path(__file__).resolve().parents[2]


def made_with(config: Config) -> dict[str, str]:
    """Version, commit, config, seeds and rounds, in words.

    Args:
        config: Of the experiment; its hash is that of `dump_config`, but for where its data lie.
    """
    return {
        "fl_ppseg": VERSION,
        "commit": commit(),
        "config": f"{config.name}, SHA-256 {config_hash(config)[:16]}",
        "seeds": ", ".join(map(str, config.seeds)),
        "rounds": str(config.federation.num_rounds),
    }


def config_hash(config: Config) -> str:
    """SHA-256 of a config, in hex; the same wherever its data lie."""
    anywhere = config.model_copy(update={"data": config.data.model_copy(update={"root": None})})
    return hashlib.sha256(dump_config(anywhere).encode()).hexdigest()


@cache
def commit() -> str:
    """The commit of the checkout that runs, `-dirty` where files differ; or that it is none."""
    if not (_CHECKOUT / ".git").exists():
        return "unknown: an installed package"
    ask = ["git", "-C", str(_CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        told = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown: git does not tell"
    return told.stdout.strip()
