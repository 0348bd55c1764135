"""The fresh views of a round on the training node: asked for, waited for, opened.

    <state>/asked.json    {"<name of a shard>": <round>}: whose views this node needs, for its owner

The owner's vault makes them; the node holds no key and waits. What it asks tells nothing that the
coordinator, who asked it, does not know.
"""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from clients.policy.fresh_views import ASKED, STOPPED, round_folder
from clients.policy.node_policy import RefusedError
from fl_ppseg.data.manifest import MANIFEST
from fl_ppseg.data.shard import Shard, open_shard
from fl_ppseg.system.files import write_atomically
from fl_ppseg.system.spans import span

PATIENCE: Final = 900.0
"""Seconds that a node on its own machine waits for its owner's vault."""
LOOK: Final = 0.05
"""Seconds between two looks."""


def open_round(
    place: Path, shards: Sequence[Path], round: int, state: Path, patience: float | None
) -> Shard:
    """Wait for the fresh views of a round, and open them.

    Args:
        place: Where the shards of rounds lie.
        shards: Folders of the owners' shards, which hold the held-out images.
        round: From 1.
        state: The node's state folder, where it says what it needs.
        patience: Seconds to wait at most; None: until it is said that no more are made, which a
            simulation does; nor does it need to be asked.

    Raises:
        RefusedError: They did not come; the text names no path.
        InputError: They are damaged.
    """
    folders = [round_folder(place, shard, round) for shard in shards]
    began = time.monotonic()
    if patience is not None:
        _ask(state, shards, round)
    with span("encryption"):
        while not _are_there(folders):
            if (place / STOPPED).exists():
                raise RefusedError(f"refused: nothing makes the views of round {round} any more")
            if patience is not None and time.monotonic() - began > patience:
                raise RefusedError(
                    f"refused: the owner's vault made no views of round {round} in "
                    f"{patience:.0f} s; see that `python -m clients.vault follow` runs"
                )
            time.sleep(LOOK)
    return open_shard(folders)


def _are_there(folders: Sequence[Path]) -> bool:
    """Whether all shards are there; each is moved to its place as a whole."""
    return all((folder / MANIFEST).exists() for folder in folders)


def _ask(state: Path, shards: Sequence[Path], round: int) -> None:
    """Say which views this node needs."""
    path, asked = state / ASKED, dict.fromkeys((shard.name for shard in shards), round)
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text("utf-8"))
        asked = (found if isinstance(found, dict) else {}) | asked
    write_atomically(path, json.dumps(asked), mode=0o600)
