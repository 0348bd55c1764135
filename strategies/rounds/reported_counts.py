"""What a client reports of its images, compared with its first report in the run.

Only the client knows how many images it has and what is labelled in them. But neither changes
during a run: not over rounds, arms or a resumption. So all later replies of a client must agree
with its first good one, and where the coordinator dealt the images out itself (in a simulation),
the first must agree with that.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from fl_ppseg.federation.message_content import Reply
from fl_ppseg.federation.results import Line


class ReportedCountsError(ValueError):
    """A reply contradicts an earlier one of its client."""


class ReportedCounts:
    """The reports of the clients of a run; shared by all its arms and seeds."""

    def __init__(
        self, dealt: Mapping[str, int], lines: Iterable[Line] = (), pooled: Iterable[str] = ()
    ) -> None:
        """Start with the results of earlier rounds.

        Args:
            dealt: Images by training client, if the coordinator knows them; held-out ones included.
            lines: Lines of results.jsonl so far.
            pooled: Arms in which one node trains on the images of all.
        """
        self._dealt = dict(dealt)
        self._pooled = frozenset(pooled)
        self._images: dict[tuple[str, str], int] = {}
        self._rows: dict[str, tuple[int, ...]] = {}
        for line in lines:
            if line["role"] == "train":
                self._images.setdefault(
                    self._key(line["client"], line["arm"]), line["num_examples"]
                )
            elif line["role"] in ("val", "heldout"):
                self._images.setdefault((line["client"], "scored"), line["num_examples"])
                if line["confusion"] is not None:
                    self._rows.setdefault(line["client"], _rows(np.asarray(line["confusion"])))

    @property
    def knows_sizes(self) -> bool:
        """Whether the coordinator dealt the images out itself."""
        return bool(self._dealt)

    def check_training(self, arm: str, client: str, reply: Reply) -> None:
        """Record and check the number of images of an update.

        Raises:
            ReportedCountsError: The client reported another, or the coordinator dealt it fewer.
        """
        is_pooled = arm in self._pooled
        dealt = sum(self._dealt.values()) if is_pooled else self._dealt.get(client, 0)
        if self.knows_sizes and reply.num_examples > dealt:
            raise ReportedCountsError(
                f"expected at most {dealt} training images as dealt, got {reply.num_examples}"
            )
        self._check_unchanged(self._key(client, arm), "training", reply.num_examples)

    def check_scoring(self, client: str, reply: Reply) -> None:
        """Record and check an evaluation's number of images, and of labelled pixels by class.

        A node that adds noise to its counts keeps the sums of their rows, too.

        Raises:
            ReportedCountsError: The client reported others.
        """
        self._check_unchanged((client, "scored"), "scored", reply.num_examples)
        assert reply.confusion is not None
        rows = _rows(reply.confusion)
        first = self._rows.setdefault(client, rows)
        if rows != first:
            other = next(
                n for n, pair in enumerate(zip(rows, first, strict=True)) if len({*pair}) > 1
            )
            raise ReportedCountsError(
                f"expected {first[other]} pixels labelled as class {other} as before, got "
                f"{rows[other]}; label maps must not change during a run"
            )

    def _check_unchanged(self, key: tuple[str, str], kind: str, num_images: int) -> None:
        first = self._images.setdefault(key, num_images)
        if num_images != first:
            raise ReportedCountsError(
                f"expected {first} {kind} images as before, got {num_images}; a client's images "
                "must not change during a run"
            )

    def _key(self, client: str, arm: str) -> tuple[str, str]:
        return client, "pooled" if arm in self._pooled else "trained"


def _rows(confusion: np.ndarray) -> tuple[int, ...]:
    """Labelled pixels by true class."""
    return tuple(int(count) for count in confusion.sum(axis=1))
