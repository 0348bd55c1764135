"""What happened in a round: the tasks, their replies, what was rejected and why."""

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
from strategies.rounds.registry import Member
from strategies.rounds.sanitising import sanitise

logger = logging.getLogger(__name__)

Phase = Literal["train", "evaluate"]


@dataclass(frozen=True)
class Task:
    """One city's work in a phase: train, or evaluate, these weights."""

    member: Member
    arrays: Arrays = field(repr=False, compare=False)
    model: str | None = None
    """City that this model belongs to, where every city has its own."""


class RoundLog:
    """The record of one round, from its first task to its lines of results."""

    def __init__(self, request: Request, round: int, observer: RunObserver) -> None:
        self.request = request
        self.round = round
        self.rejected: list[str] = []
        self.num_asked = 0
        self.num_trained = 0
        self.num_val_asked = 0
        self.update_norms: dict[str, float] = {}
        """Norm of each accepted update by city, where it is measured."""
        self.extra: Line = {}
        """Further entries of the round's own line."""
        self._observer = observer
        self._started = time.monotonic()
        self._lines: list[Line] = []
        self._losses: list[tuple[float, int]] = []
        self.phase: Phase = "train"
        self.outstanding: list[tuple[Metadata, Task]] = []
        """Tasks whose replies have not come, with the metadata of the messages that were sent."""
        self.failed: list[Task] = []
        """Tasks of this phase that got no good reply."""
        self._unscored: set[tuple[str, str | None]] = set()
        self._cities: dict[int, str] = {}

    @property
    def train_loss(self) -> float | None:
        """Mean loss of the local updates, weighted by num_examples."""
        total = sum(n for _, n in self._losses)
        return sum(loss * n for loss, n in self._losses) / total if total else None

    def open(self, phase: Phase, sent: list[tuple[Metadata, Task]]) -> None:
        """Start a phase with its tasks; Flower fills in the messages' ids when it sends them."""
        self.phase, self.outstanding, self.failed = phase, sent, []
        self.num_asked = len(sent)
        self._cities |= {task.member.node_id: task.member.city for _, task in sent}
        asked_val = [task for _, task in sent if phase == "evaluate" and task.member.role == "val"]
        self._unscored = {(task.member.city, task.model) for task in asked_val}
        self.num_val_asked = len({task.member.city for task in asked_val})

    def reopen(self, sent: list[tuple[Metadata, Task]]) -> None:
        """Add tasks of this phase that were sent again to the outstanding ones."""
        self.outstanding += sent
        self._cities |= {task.member.node_id: task.member.city for _, task in sent}

    def name_of(self, node_id: int) -> str:
        """The city of a node that was asked, for messages; "a node" if it is not known."""
        return self._cities.get(node_id, "a node")

    def withdraw(self, message_ids: Container[str]) -> list[Task]:
        """Take the tasks of some messages out of the outstanding ones."""
        tasks = [task for sent, task in self.outstanding if sent.message_id in message_ids]
        self.outstanding = [w for w in self.outstanding if w[0].message_id not in message_ids]
        return tasks

    def pop(self, reply: Metadata) -> Task | None:
        """Take the task of a reply out of the outstanding ones; None if there is none.

        They are matched by the id of the message: an error that Flower itself replies names no
        node.
        """
        for number, (sent, task) in enumerate(self.outstanding):
            if sent.message_id and sent.message_id == reply.reply_to_message_id:
                del self.outstanding[number]
                return task
        return None

    def accept(self, task: Task, reply: Reply) -> None:
        """Record a good reply."""
        if self.phase == "train":
            self.num_trained += 1
            if reply.loss is not None:
                self._losses.append((reply.loss, reply.num_examples))
        self._unscored.discard((task.member.city, task.model))
        self._lines.append(self._line(task, reply))
        self._observer.replied(
            task.member.city,
            self.phase,
            self.num_asked - len(self.outstanding),
            self.num_asked,
            reply.loss,
        )

    def fail(self, task: Task, why: str) -> None:
        """Record that a task got no good reply."""
        self.failed.append(task)
        self.reject(task.member.city, why)

    def reject(self, city: str, why: str) -> None:
        """Record, log and show a reply or a node that does not count, with the reason."""
        why = sanitise(why)
        self.rejected.append(f"{city}: {why}")
        logger.warning("arm %s, round %d: %s: %s", self.request.arm, self.round, city, why)
        self.notify(f"{city}: {why}")

    def notify(self, text: str) -> None:
        """Show the user a line about this round."""
        self._observer.message(f"round {self.round}: {text}")

    def reasons(self) -> str:
        """The first reasons of rejection, for an error message."""
        return "; ".join(self.rejected[:3]) or "no replies"

    def close(self) -> None:
        """End a phase: tasks that are still outstanding have failed."""
        for _, task in self.outstanding:
            self.fail(task, "no reply before the deadline")
        self.outstanding = []

    def reject_unscored(self, num_val: int = 0) -> None:
        """Record that a round has no scores, if the replies of val cities are missing.

        Args:
            num_val: Number of val cities of the run, those that never connected included.
        """
        if self.num_val_asked < num_val:
            self._unscored.add((f"{num_val - self.num_val_asked} that never connected", None))
        missing = sorted({city for city, _ in self._unscored})
        if missing:
            self.reject("val", f"no scores without {', '.join(missing)}")

    def scores(self) -> Scores | None:
        """Scores over the val cities of this round; None unless all of them answered."""
        return round_scores(line for line in self._counted() if line["role"] == "val")

    def result_lines(self) -> list[Line]:
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
            | self.extra,
        ]

    def _counted(self) -> list[Line]:
        """The lines; without val counts if val cities are missing."""
        if not self._unscored:
            return self._lines
        return [x | {"confusion": None} if x["role"] == "val" else x for x in self._lines]

    def _line(self, task: Task, reply: Reply) -> Line:
        role = "val" if task.member.role == "val" else "heldout"
        norm = self.update_norms.get(task.member.city) if self.phase == "train" else None
        return self._base(task.member.city, "train" if self.phase == "train" else role) | {
            "model": task.model or "",
            "loss": reply.loss,
            "num_examples": reply.num_examples,
            "confusion": None if reply.confusion is None else reply.confusion.tolist(),
            "bytes_up": sum(value.nbytes for value in reply.arrays.values()),
            "bytes_down": sum(value.nbytes for value in task.arrays.values()),
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


def longest_first(tasks: Iterable[Task], num_examples: dict[str, int]) -> list[Task]:
    """Tasks in the order in which they are sent: the city with most images first.

    Args:
        tasks: The tasks.
        num_examples: Images by city; a city that is missing counts like the largest.
    """
    most = max(num_examples.values(), default=0)

    def order(task: Task) -> tuple[int, str, str]:
        return -num_examples.get(task.member.city, most), task.member.city, task.model or ""

    return sorted(tasks, key=order)
