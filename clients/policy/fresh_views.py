"""Which views belong to which round, where each round trains on views of its own.

    <place>/<digest>/     the shard of a round: `fl_ppseg.data.manifest.round_digest` names it
    <place>/stopped       why no more of them are made (simulations); absent: they are
    <place>/finished.json {"looked": time, "rounds": {arm and seed: round}}: the newest round of
                          each that is finished (simulations)

View 0 of an image belongs to no round. Of the others one of four is the image itself.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fl_ppseg.data.manifest import round_digest
from fl_ppseg.system.files import write_atomically

ROUNDS: Final = "rounds"
ROUNDS_ON_DISK: Final = 2
"""Rounds whose views lie on disk: the one that trains, and the next."""
STOPPED: Final = "stopped"
FINISHED: Final = "finished.json"
ASKED: Final = "asked.json"
"""In a node's state folder: see `clients.round_views`."""


def round_views(round: int, each: int) -> range:
    """Numbers of the views of an image in a round; none in round 0.

    >>> round_views(1, 2), round_views(2, 2), round_views(0, 2)
    (range(1, 3), range(3, 5), range(0, 0))

    Args:
        round: From 1; 0: what is made ahead, no training view.
        each: Views of an image in a round.
    """
    return range(1 + (round - 1) * each, 1 + round * each) if round else range(0)


def round_folder(place: Path, shard: Path, round: int) -> Path:
    """Folder of the shard that holds the fresh views of a round.

    Args:
        place: Where the shards of rounds lie.
        shard: Folder of the owner's shard, which holds the held-out images.
        round: From 1.
    """
    return place / round_digest(shard.name, round)


def training_name(arm: str, seed: int) -> str:
    """What the training of an arm and seed is called where finished rounds are recorded.

    >>> training_name("plain", 0)
    'plain/seed_0'
    """
    return f"{arm}/seed_{seed}"


def record_finished(place: Path, looked: int, rounds: Mapping[str, int]) -> None:
    """Record which rounds of a simulation are finished: their views are removed, none are made.

    Args:
        place: Where the shards of rounds lie.
        looked: When the look at the run began, in nanoseconds of this machine's monotonic clock.
        rounds: The newest round that is finished, by `training_name`.
    """
    text = json.dumps({"looked": looked, "rounds": dict(rounds)})
    write_atomically(place / FINISHED, text, mode=0o600, lasting=False)


def is_finished(place: Path, training: str, round: int, since: int) -> bool:
    """Whether a round was seen to be finished by a look that began after a moment.

    An earlier look says nothing of a round that is trained again, because its checkpoint was
    damaged.

    Args:
        place: Where the shards of rounds lie.
        training: Of `training_name`.
        round: From 1.
        since: The moment, in nanoseconds of this machine's monotonic clock.
    """
    try:
        said = json.loads((place / FINISHED).read_bytes())
    except FileNotFoundError:
        return False
    return bool(said["looked"] > since and said["rounds"].get(training, 0) >= round)
