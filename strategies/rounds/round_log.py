"""What happened in a round: who was asked, who answered what, who was rejected and why."""

import logging
import time
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Literal

from flwr.app import Metadata

from fl_ppseg.federation.message_content import Reply, Request
from fl_ppseg.federation.results import Line
from fl_ppseg.learning.evaluation import Scores
from fl_ppseg.learning.scores import round_scores
from fl_ppseg.progress.observer import RunObserver
from fl_ppseg.system.arrays import Arrays
from strategies.rounds.roster import Member
from strategies.rounds.wording import plain

logger = logging.getLogger(__name__)

Phase = Literal["train", "evaluate"]


@dataclass(frozen=True)
class Ask:
    """A question to one city: these weights, please."""

    member: Member
    arrays: Arrays = field(repr=False, compare=False)
    model: str | None = None
    """City whose model this is, where every city has its own."""


class RoundLog:
    """The book of one round, from its first question to its lines of results."""

    def __init__(self, request: Request, round: int, observer: RunObserver) -> None:
        self.request = request
        self.round = round
        self.rejected: list[str] = []
        self.num_asked = 0
        self.num_trained = 0
        self.num_val_asked = 0
        self.update_norms: dict[str, float] = {}
        """How far each city moved the weights, where that is looked at."""
        self.about: Line = {}
        """What else the round's own line says."""
        self._observer = observer
        self._started = time.monotonic()
        self._lines: list[Line] = []
        self._losses: list[tuple[float, int]] = []
        self.phase: Phase = "train"
        self.waiting: list[tuple[Metadata, Ask]] = []
        self.failed: list[Ask] = []
        """Questions of this phase that got no good answer."""
        self._unscored: set[tuple[str, str | None]] = set()
        self._cities: dict[int, str] = {}

    @property
    def train_loss(self) -> float | None:
        """Mean loss of the local updates, weighted by num_examples."""
        total = sum(n for _, n in self._losses)
        return sum(loss * n for loss, n in self._losses) / total if total else None

    def open(self, phase: Phase, waiting: list[tuple[Metadata, Ask]]) -> None:
        """Remember whose answer is wanted; Flower fills in the messages' ids when it sends them."""
        self.phase, self.waiting, self.failed = phase, waiting, []
        self.num_asked = len(waiting)
        self._cities |= {ask.member.node_id: ask.member.city for _, ask in waiting}
        asked_val = [ask for _, ask in waiting if phase == "evaluate" and ask.member.role == "val"]
        self._unscored = {(ask.member.city, ask.model) for ask in asked_val}
        self.num_val_asked = len({ask.member.city for ask in asked_val})

    def open_again(self, waiting: list[tuple[Metadata, Ask]]) -> None:
        """Wait, besides, for cities that were asked in this phase before."""
        self.waiting += waiting
        self._cities |= {ask.member.node_id: ask.member.city for _, ask in waiting}

    def name_of(self, node_id: int) -> str:
        """The city of a node that was asked, for a person."""
        return self._cities.get(node_id, "a node")

    def withdraw(self, message_ids: Container[str]) -> list[Ask]:
        """Wait no longer for the answers to messages that could not be sent."""
        asks = [ask for sent, ask in self.waiting if sent.message_id in message_ids]
        self.waiting = [w for w in self.waiting if w[0].message_id not in message_ids]
        return asks

    def take(self, reply: Metadata) -> Ask | None:
        """The question that a reply answers, which waits no longer; None if nobody waits for it.

        Told from the id of the message: an error that Flower itself replies names no node.
        """
        for number, (sent, ask) in enumerate(self.waiting):
            if sent.message_id and sent.message_id == reply.reply_to_message_id:
                del self.waiting[number]
                return ask
        return None

    def accept(self, ask: Ask, reply: Reply) -> None:
        """Write down a good reply."""
        if self.phase == "train":
            self.num_trained += 1
            if reply.loss is not None:
                self._losses.append((reply.loss, reply.num_examples))
        self._unscored.discard((ask.member.city, ask.model))
        self._lines.append(self._line(ask, reply))
        self._observer.replied(
            ask.member.city,
            self.phase,
            self.num_asked - len(self.waiting),
            self.num_asked,
            reply.loss,
        )

    def fail(self, ask: Ask, why: str) -> None:
        """Write down that a question got no good answer."""
        self.failed.append(ask)
        self.reject(ask.member.city, why)

    def reject(self, city: str, why: str) -> None:
        """Write down, and say in one line, what does not count."""
        why = plain(why)
        self.rejected.append(f"{city}: {why}")
        logger.warning("arm %s, round %d: %s: %s", self.request.arm, self.round, city, why)
        self.say(f"{city}: {why}")

    def say(self, text: str) -> None:
        """Tell people a line about this round."""
        self._observer.message(f"round {self.round}: {text}")

    def why(self) -> str:
        """The first reasons of rejection, for an error line."""
        return "; ".join(self.rejected[:3]) or "no answers"

    def close(self) -> None:
        """Say who did not answer."""
        for _, ask in self.waiting:
            self.fail(ask, "no answer in time")
        self.waiting = []

    def check_scored(self, num_val: int = 0) -> None:
        """Say that a round without all val cities has no scores.

        Args:
            num_val: Val cities that are expected at least, known or not.
        """
        if self.num_val_asked < num_val:
            self._unscored.add((f"{num_val - self.num_val_asked} that never came", None))
        missing = sorted({city for city, _ in self._unscored})
        if missing:
            self.reject("val", f"no scores without {', '.join(missing)}")

    def scores(self) -> Scores | None:
        """Scores over the val cities of this round; None unless all of them answered."""
        return round_scores(line for line in self._counted() if line["role"] == "val")

    def finished(self) -> list[Line]:
        """The round's lines of results, sorted; the last one is about the round itself.

        Where a val city is missing, the others' lines keep their costs and lose their counts, so
        that no score can be taken of a part of the cities.
        """
        lines = sorted(
            self._counted(), key=lambda x: (x["role"] != "train", x["role"], x["city"], x["model"])
        )
        return [
            *({k: v for k, v in line.items() if k != "model" or v} for line in lines),
            self._base(None, "round")
            | {
                "loss": self.train_loss,
                "seconds": round(time.monotonic() - self._started, 3),
                "rejected": self.rejected,
            }
            | self.about,
        ]

    def _counted(self) -> list[Line]:
        """The lines, whose val counts stand for all val cities or are left out."""
        if not self._unscored:
            return self._lines
        return [x | {"confusion": None} if x["role"] == "val" else x for x in self._lines]

    def _line(self, ask: Ask, reply: Reply) -> Line:
        role = "val" if ask.member.role == "val" else "heldout"
        norm = self.update_norms.get(ask.member.city) if self.phase == "train" else None
        return self._base(ask.member.city, "train" if self.phase == "train" else role) | {
            "model": ask.model or "",
            "loss": reply.loss,
            "num_examples": reply.num_examples,
            "confusion": None if reply.confusion is None else reply.confusion.tolist(),
            "bytes_up": sum(value.nbytes for value in reply.arrays.values()),
            "bytes_down": sum(value.nbytes for value in ask.arrays.values()),
            "seconds": round(reply.seconds, 4),
            **({} if norm is None else {"update_norm": norm}),
        }

    def _base(self, city: str | None, role: str) -> Line:
        return {
            "arm": self.request.arm,
            "seed": self.request.seed,
            "round": self.round,
            "city": city,
            "role": role,
            "confusion": None,
            "bytes_up": 0,
            "bytes_down": 0,
        }


def longest_first(asks: Iterable[Ask], num_examples: dict[str, int]) -> list[Ask]:
    """Questions in the order in which they are sent: who has most to do first.

    Args:
        asks: The questions.
        num_examples: Images by city; those that are not known may be as many as any.
    """
    most = max(num_examples.values(), default=0)

    def order(ask: Ask) -> tuple[int, str, str]:
        return -num_examples.get(ask.member.city, most), ask.member.city, ask.model or ""

    return sorted(asks, key=order)
