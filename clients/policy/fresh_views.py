"""Which views belong to which round, where each round trains on views of its own.

    <place>/<digest>/     the shard of a round: `fl_ppseg.data.manifest.round_digest` names it
    <place>/stopped       why no more of them are made (simulations); absent: they are

View 0 of an image is the image itself, and no round has it.
"""

from pathlib import Path
from typing import Final

from fl_ppseg.data.manifest import round_digest

ROUNDS: Final = "rounds"
STOPPED: Final = "stopped"
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
