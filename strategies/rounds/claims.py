"""What a city says of its images, held to what it said first in the run.

Nobody but the city knows how many images it has and what is labelled in them. But neither changes
while a run goes on: not over rounds, not over arms, not over a pause. So the first good answer of a
city is the measure of all later ones, and where the coordinator dealt the images out itself (in a
simulation), what it dealt is the measure of the first.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from fl_ppseg.federation.message_content import Reply
from fl_ppseg.federation.results import Line


class ClaimError(ValueError):
    """An answer that contradicts what its city said before."""


class Claims:
    """What the cities of a run have said; one for all its arms and seeds."""

    def __init__(
        self, dealt: Mapping[str, int], lines: Iterable[Line] = (), pooled: Iterable[str] = ()
    ) -> None:
        """Begin with what earlier rounds wrote down.

        Args:
            dealt: Images by training city where the coordinator knows; held-out ones included.
            lines: Of results.jsonl so far.
            pooled: Arms in which one node trains on the images of all.
        """
        self._dealt = dict(dealt)
        self._pooled = frozenset(pooled)
        self._images: dict[tuple[str, str], int] = {}
        self._rows: dict[str, tuple[int, ...]] = {}
        for line in lines:
            if line["role"] == "train":
                self._images.setdefault(self._key(line["city"], line["arm"]), line["num_examples"])
            elif line["role"] in ("val", "heldout"):
                self._images.setdefault((line["city"], "scored"), line["num_examples"])
                if line["confusion"] is not None:
                    self._rows.setdefault(line["city"], _rows(np.asarray(line["confusion"])))

    @property
    def knows_sizes(self) -> bool:
        """Whether the coordinator dealt the images out itself."""
        return bool(self._dealt)

    def check_training(self, arm: str, city: str, reply: Reply) -> None:
        """Take an update's number of images.

        Raises:
            ClaimError: The city said another, or the coordinator dealt it fewer.
        """
        is_pooled = arm in self._pooled
        dealt = sum(self._dealt.values()) if is_pooled else self._dealt.get(city, 0)
        if self.knows_sizes and reply.num_examples > dealt:
            raise ClaimError(
                f"says that it trained on {reply.num_examples} images, and was dealt {dealt}"
            )
        self._hold(self._key(city, arm), "trained on", reply.num_examples)

    def check_scoring(self, city: str, reply: Reply) -> None:
        """Take an evaluation's number of images, and of labelled pixels by class.

        A node that adds noise to its counts keeps the sums of their rows, too.

        Raises:
            ClaimError: The city said others.
        """
        self._hold((city, "scored"), "scored", reply.num_examples)
        assert reply.confusion is not None
        rows = _rows(reply.confusion)
        first = self._rows.setdefault(city, rows)
        if rows != first:
            other = next(
                n for n, pair in enumerate(zip(rows, first, strict=True)) if len({*pair}) > 1
            )
            raise ClaimError(
                f"says that {rows[other]} pixels are labelled as class {other}, and said "
                f"{first[other]} before; label maps stay the same for a run"
            )

    def _hold(self, key: tuple[str, str], did: str, num_images: int) -> None:
        first = self._images.setdefault(key, num_images)
        if num_images != first:
            raise ClaimError(
                f"says that it {did} {num_images} images, and said {first} before; a city's images "
                "stay the same for a run"
            )

    def _key(self, city: str, arm: str) -> tuple[str, str]:
        return city, "pooled" if arm in self._pooled else "trained"


def _rows(confusion: np.ndarray) -> tuple[int, ...]:
    """Labelled pixels by true class."""
    return tuple(int(count) for count in confusion.sum(axis=1))
