"""What happened in a round: the replies to its tasks, what was rejected and why."""

import logging
import time
from typing import Literal, cast

from fl_ppseg.codecs.tensors import num_bytes
from fl_ppseg.codecs.update import codec_of
from fl_ppseg.federation.message_content import Reply, Request
from fl_ppseg.federation.results import ClientLine, Line, Release, RoundLine
from fl_ppseg.learning.evaluation import Scores
from fl_ppseg.learning.scores import round_scores
from fl_ppseg.progress.events import Notice, Replied, RoundFinished, RoundScores
from fl_ppseg.progress.observer import Observer
from strategies.rounds.sanitising import sanitise
from strategies.rounds.tasks import State, Task, TaskTable

logger = logging.getLogger(__name__)


class RoundLog:
    """The record of one round, from its first task to its lines of results."""

    def __init__(self, request: Request, round: int, observer: Observer) -> None:
        self.request = request
        self.round = round
        self.tasks = TaskTable()
        self.rejected: list[str] = []
        self.update_norms: dict[str, float] = {}
        """Norm of each accepted update by client, where it is measured."""
        self.release: Release = {}
        """What the round's own line says of central privacy."""
        self._observer = observer
        self._started = time.monotonic()
        self._lines: list[ClientLine] = []
        self._losses: list[tuple[float, int]] = []
        self._num_absent = 0
        """Val clients that were not asked."""
        self._bytes_up = self._bytes_down = 0
        """Of the exchanges around training, which no client's line counts."""

    @property
    def train_loss(self) -> float | None:
        """Mean loss of the local updates, weighted by num_examples."""
        total = sum(n for _, n in self._losses)
        return sum(loss * n for loss, n in self._losses) / total if total else None

    def name_of(self, node_id: int) -> str:
        """The client of a node that was asked, for messages; "a node" if it is not known."""
        asked = (task.member for task in self.tasks if task.member.node_id == node_id)
        return next((member.client for member in asked), "a node")

    def accept(self, task: Task, reply: Reply) -> None:
        """Record a good reply."""
        phase, num_asked = self.tasks.phase, self.tasks.num_asked
        if phase not in ("train", "evaluate"):
            self._bytes_up += reply.num_bytes
            self._bytes_down += task.bytes_down
            self.tasks.finish(task)
            return
        if phase == "train" and reply.loss is not None:
            self._losses.append((reply.loss, reply.num_examples))
        self._lines.append(self._line(task, reply))
        self.tasks.finish(task)
        self._observer.on_event(
            Replied(
                self.request.arm,
                self.request.seed,
                self.round,
                task.member.client,
                phase,
                num_asked - len(self.tasks.in_state(State.SENT)),
                num_asked,
                reply.loss,
            )
        )

    def fail(self, task: Task, why: str) -> None:
        """Record that a task got no good reply."""
        self.tasks.fail(task)
        self.reject(task.member.client, why)

    def reject(self, client: str, why: str) -> None:
        """Record, log and show a reply or a node that does not count, with the reason."""
        why = sanitise(why)
        self.rejected.append(f"{client}: {why}")
        logger.warning("arm %s, round %d: %s: %s", self.request.arm, self.round, client, why)
        self.notify(f"{client}: {why}")

    def notify(self, text: str) -> None:
        """Show the user a line about this round."""
        self._observer.on_event(Notice(f"round {self.round}: {text}"))

    def reasons(self) -> str:
        """The first reasons of rejection, for an error message."""
        return "; ".join(self.rejected[:3]) or "no replies"

    def close(self) -> None:
        """End a phase: tasks that are still outstanding have failed."""
        for task in self.tasks.in_state(State.SENT):
            self.fail(task, "no reply before the deadline")

    def reject_unscored(self, num_val: int = 0) -> None:
        """Record that a round has no scores, if the replies of val clients are missing.

        Args:
            num_val: Number of val clients of the run, those that never connected included.
        """
        val = {task.member.client for task in self.tasks if task.member.role == "val"}
        self._num_absent = max(0, num_val - len(val))
        if missing := self._unscored():
            self.reject("val", f"no scores without {', '.join(missing)}")

    def scores(self) -> Scores | None:
        """Scores over the val clients of this round; None unless all of them answered."""
        return round_scores(line for line in self._counted() if line["role"] == "val")

    def finished(self) -> RoundFinished:
        """What the observers are told of the round."""
        arm, seed = self.request.arm, self.request.seed
        return RoundFinished(arm, seed, self.round, self.train_loss, shown(self.scores()))

    def result_lines(self) -> list[Line]:
        """The round's lines of results, sorted; the last one is about the round itself.

        Where a val client is missing, the others' lines keep their costs and lose their counts, so
        that no score can be taken of a part of the clients.
        """
        lines = sorted(
            self._counted(),
            key=lambda x: (x["role"] != "train", x["role"], x["client"], x["model"]),
        )
        own: RoundLine = {
            "arm": self.request.arm,
            "seed": self.request.seed,
            "round": self.round,
            "client": None,
            "role": "round",
            "confusion": None,
            "bytes_up": self._bytes_up,
            "bytes_down": self._bytes_down,
            "loss": self.train_loss,
            "seconds": round(time.monotonic() - self._started, 3),
            "rejected": self.rejected,
            **self.release,
        }
        return [*map(_without_empty_model, lines), own]

    def _unscored(self) -> list[str]:
        """The val clients without a good reply to each of their tasks."""
        asked = (task for task in self.tasks if task.member.role == "val")
        missing = {task.member.client for task in asked if task.state is not State.DONE}
        absent = {f"{self._num_absent} that never connected"} if self._num_absent else set[str]()
        return sorted(missing | absent)

    def _counted(self) -> list[ClientLine]:
        """The lines; without val counts if val clients are missing."""
        if not self._unscored():
            return self._lines
        return [{**x, "confusion": None} if x["role"] == "val" else x for x in self._lines]

    def _line(self, task: Task, reply: Reply) -> ClientLine:
        scored: Literal["val", "heldout"] = "val" if task.member.role == "val" else "heldout"
        line: ClientLine = {
            "arm": self.request.arm,
            "seed": self.request.seed,
            "round": self.round,
            "client": task.member.client,
            "role": "train" if self.tasks.phase == "train" else scored,
            "confusion": None if reply.confusion is None else reply.confusion.tolist(),
            "bytes_up": num_bytes(codec_of(self.request.training).layout(reply.arrays).values()),
            "bytes_down": task.bytes_down,
            "model": task.model or "",
            "loss": reply.loss,
            "num_examples": reply.num_examples,
            "seconds": round(reply.seconds, 4),
        }
        if self.tasks.phase == "train" and task.member.client in self.update_norms:
            line["update_norm"] = self.update_norms[task.member.client]
        return line


def _without_empty_model(line: ClientLine) -> ClientLine:
    """As it is written: a model that is everybody's has no name."""
    return cast(ClientLine, {k: v for k, v in line.items() if k != "model" or v})


def shown(scores: Scores | None) -> RoundScores | None:
    """What of the scores of a round observers are told."""
    return None if scores is None else RoundScores(scores.aAcc, scores.mIoU, scores.mAcc)
