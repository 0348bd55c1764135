"""One exchange of a round: requests out, replies in, each checked, counted and written down."""

import logging
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from flwr.app import Message, MessageType, Metadata, RecordDict

from fl_ppseg.evaluation import Scores
from fl_ppseg.messages import (
    Arrays,
    MessageError,
    Reply,
    Request,
    pack_request,
    unpack_reply,
)
from fl_ppseg.progress import RunObserver
from fl_ppseg.run_folder import Line
from fl_ppseg.scores import round_scores
from strategies.roster import Member

logger = logging.getLogger(__name__)

Phase = Literal["train", "evaluate"]

MAX_REASON = 200
"""Characters of a rejection's reason that are shown and kept."""


@dataclass(frozen=True)
class Ask:
    """A question to one city: these weights, please."""

    member: Member
    arrays: Arrays = field(repr=False)
    model: str | None = None
    """City whose model this is, where every city has its own."""


class RoundLog:
    """What happened in a round: who was asked, who answered what, who was rejected and why."""

    def __init__(self, request: Request, round: int, observer: RunObserver) -> None:
        self.request = request
        self.round = round
        self.rejected: list[str] = []
        self.num_asked = 0
        self.num_trained = 0
        self._observer = observer
        self._started = time.monotonic()
        self._lines: list[Line] = []
        self._losses: list[tuple[float, int]] = []
        self.phase: Phase = "train"
        self.waiting: list[tuple[Metadata, Ask]] = []
        self._unscored: set[tuple[str, str | None]] = set()

    @property
    def train_loss(self) -> float | None:
        """Mean loss of the local updates, weighted by num_examples."""
        total = sum(n for _, n in self._losses)
        return sum(loss * n for loss, n in self._losses) / total if total else None

    def open(self, phase: Phase, waiting: list[tuple[Metadata, Ask]]) -> None:
        """Remember whose answer is wanted; Flower fills in the messages' ids when it sends them."""
        self.phase, self.waiting = phase, waiting
        self.num_asked = len(waiting)
        asked_val = [ask for _, ask in waiting if phase == "evaluate" and ask.member.role == "val"]
        self._unscored = {(ask.member.city, ask.model) for ask in asked_val}

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

    def reject(self, city: str, why: str) -> None:
        """Write down, and say in one line, that a city's reply does not count."""
        why = " ".join(why.split())[:MAX_REASON]
        self.rejected.append(f"{city}: {why}")
        logger.warning("arm %s, round %d: %s: %s", self.request.arm, self.round, city, why)
        self._observer.message(f"round {self.round}: {city}: {why}")

    def why(self) -> str:
        """The first reasons of rejection, for an error line."""
        return "; ".join(self.rejected[:3]) or "no answers"

    def close(self) -> None:
        """Say who did not answer, and that a round without all val cities has no scores."""
        for _, ask in self.waiting:
            self.reject(ask.member.city, "no answer in time")
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
            },
        ]

    def _counted(self) -> list[Line]:
        """The lines, whose val counts stand for all val cities or are left out."""
        if not self._unscored:
            return self._lines
        return [x | {"confusion": None} if x["role"] == "val" else x for x in self._lines]

    def _line(self, ask: Ask, reply: Reply) -> Line:
        role = "val" if ask.member.role == "val" else "heldout"
        return self._base(ask.member.city, "train" if self.phase == "train" else role) | {
            "model": ask.model or "",
            "loss": reply.loss,
            "num_examples": reply.num_examples,
            "confusion": None if reply.confusion is None else reply.confusion.tolist(),
            "bytes_up": sum(value.nbytes for value in reply.arrays.values()),
            "bytes_down": sum(value.nbytes for value in ask.arrays.values()),
            "seconds": round(reply.seconds, 4),
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


def requests(phase: Phase, log: RoundLog, asks: Iterable[Ask], ttl: float) -> list[Message]:
    """The messages of an exchange; weights that several cities get are packed once.

    Args:
        phase: What to ask for.
        log: The round's log, which from now on waits for the answers.
        asks: Who is asked with which weights.
        ttl: Seconds after which nobody needs an answer.
    """
    kind = MessageType.TRAIN if phase == "train" else MessageType.EVALUATE
    packed: dict[int, RecordDict] = {}
    messages, waiting = [], []
    for ask in asks:
        if id(ask.arrays) not in packed:
            request = replace(log.request, task=phase, round=log.round, arrays=ask.arrays)
            packed[id(ask.arrays)] = pack_request(request)
        group = f"{log.round}/{phase}/{ask.model or ''}"
        content = packed[id(ask.arrays)]
        message = Message(content, ask.member.node_id, kind, ttl=ttl, group_id=group)
        waiting.append((message.metadata, ask))
        messages.append(message)
    log.open(phase, waiting)
    return messages


def collect(
    replies: Iterable[Message], log: RoundLog, allowed: Collection[str]
) -> Iterator[tuple[Ask, Reply]]:
    """Replies that are what was asked for, one at a time; the others are rejected and said.

    Args:
        replies: Messages in any order.
        log: The round's log; knows who was asked.
        allowed: Names of the arrays that a reply must hold.
    """
    for message in replies:
        ask = log.take(message.metadata)
        if ask is None:
            log.reject("a node", "an answer that nobody waits for")
            continue
        try:
            yield ask, _checked(message, ask, log, allowed)
        except MessageError as error:
            log.reject(ask.member.city, str(error))
        del message
    log.close()


def _checked(message: Message, ask: Ask, log: RoundLog, allowed: Collection[str]) -> Reply:
    if message.has_error():
        raise MessageError(message.error.reason)
    if message.metadata.src_node_id != ask.member.node_id:
        raise MessageError("an answer from another node")
    reply = unpack_reply(message.content, allowed)
    if (reply.run_id, reply.round, reply.city) != (log.request.run_id, log.round, ask.member.city):
        raise MessageError("an answer to another run, round or city")
    size = log.request.num_classes
    if reply.confusion is not None and reply.confusion.shape != (size, size):
        raise MessageError("confusion counts of another number of classes")
    if log.phase == "evaluate" and reply.confusion is None:
        raise MessageError("no confusion counts")
    return reply
