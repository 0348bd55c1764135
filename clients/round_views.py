"""The fresh views of a round on the training node: asked for, waited for, opened.

    <state>/asked.json    {"shard": name, "round": number}: the views that this node needs, for its
                          owner's vault

The owner's vault makes them; the node holds no key and waits. What it asks tells nothing that the
coordinator, who asked it, does not know.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from clients.policy.fresh_views import ASKED, STOPPED, is_finished, round_folder
from clients.policy.node_policy import RefusedError
from fl_ppseg.data.manifest import MANIFEST
from fl_ppseg.data.shard import Shard, open_shard
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically
from fl_ppseg.system.spans import span

PATIENCE: Final = 900.0
"""Seconds that a node on its own machine waits for its owner's vault."""
LOOK: Final = 0.05
"""Seconds between two looks."""


def open_round(
    place: Path,
    shards: Sequence[Path],
    training: str,
    round: int,
    state: Path,
    patience: float | None,
) -> Shard:
    """Wait for the fresh views of a round, and open them.

    Args:
        place: Where the shards of rounds lie.
        shards: Folders of the owners' shards, which hold the held-out images.
        training: `training_name` of the arm and seed.
        round: From 1.
        state: The node's state folder, where it says what it needs.
        patience: Seconds to wait at most; None: until it is said that no more are made or
            that the round is finished, which a simulation does; nor does it need to be asked.

    Raises:
        RefusedError: They did not come; the text names no path.
        InputError: They are damaged.
    """
    folders = [round_folder(place, shard, round) for shard in shards]
    began = time.monotonic_ns()
    if patience is not None:
        _ask(state, shards[0], round)
    with span("encryption"):
        while (shard := _opened(folders, is_waiting=patience is not None)) is None:
            if (place / STOPPED).exists():
                raise RefusedError(f"refused: nothing makes the views of round {round} any more")
            if patience is None and is_finished(place, training, round, began):
                raise RefusedError(f"refused: round {round} is finished")
            if patience is not None and time.monotonic_ns() - began > patience * 1e9:
                raise RefusedError(
                    f"refused: the owner's vault gave no whole views of round {round} in "
                    f"{patience:.0f} s; see that `python -m clients.vault follow` runs"
                )
            time.sleep(LOOK)
    return shard


def _opened(folders: Sequence[Path], *, is_waiting: bool) -> Shard | None:
    """The shards of a round; None while one is missing.

    A vault moves each to its place as a whole; from another machine its files may come one by one,
    and one that is not whole is waited for as well.

    Raises:
        InputError: One is damaged, and nobody waits.
    """
    if not all((folder / MANIFEST).exists() for folder in folders):
        return None
    try:
        return open_shard(folders)
    except InputError:
        if not is_waiting:
            raise
        return None


def _ask(state: Path, shard: Path, round: int) -> None:
    """Say which views this node needs."""
    text = json.dumps({"shard": shard.name, "round": round})
    write_atomically(state / ASKED, text, mode=0o600)
