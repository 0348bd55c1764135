"""Reconnection: cities whose node disconnects during a round are asked again when it is back.

Flower delivers a message to a node once. When the node disconnects, an error takes the place of its
reply and the work is lost, though the node may be back a minute later. Within a grace period the
city's node is looked for, under whatever node id, and sent the same task again; so is a city whose
reply was lost.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from flwr.app import Message

from fl_ppseg.flower.grid import GONE, Replies
from strategies.rounds.discovery import Discovery
from strategies.rounds.liveness import LivenessProbe
from strategies.rounds.round_log import RoundLog, Task

LOST_REPLY_GRACE_SECONDS: Final = 60.0
"""Least grace period of a node whose reply was lost: it was connected a moment ago."""
POLL_SECONDS = 1.0
"""Time between two polls for nodes that have reconnected."""
MAX_ATTEMPTS = 5
"""How often a city is asked again in one exchange: a node may crash at each of its tasks."""

DISCONNECTED: Final = "its node disconnected"
REPLY_LOST: Final = "its reply was lost"

Resend = Callable[[Sequence[Task], float], list[Message]]
"""(tasks, seconds until the deadline) -> messages to the nodes that their cities have now."""


class Reconnection:
    """The replies of one exchange, with another attempt for nodes that disconnect."""

    def __init__(
        self, replies: Replies, log: RoundLog, discovery: Discovery, resend: Resend, grace: float
    ) -> None:
        """Wait up to `grace` seconds for each city, and never beyond the exchange's deadline."""
        self._replies = replies
        self._log = log
        self._discovery = discovery
        self._resend = resend
        self._grace = grace
        self._liveness = LivenessProbe(replies, log, discovery)
        self._disconnected: dict[Task, float] = {}
        """Task -> end of its grace period (monotonic clock, seconds)."""
        self._attempts: Counter[tuple[str, str | None]] = Counter()
        self._polled = 0.0

    def defer(self, task: Task, reply: Message) -> bool:
        """Start the grace period of a task whose reply only says that its node disconnected.

        Returns:
            Whether the task waits for its node; False if the reply says something else, or there
            is no grace period or no attempt left.
        """
        is_gone = reply.has_error() and reply.error.code in GONE
        return is_gone and self._start_grace(task, self._grace, DISCONNECTED)

    def replies(self) -> Iterator[Message]:
        """The replies as they come, those to tasks that were sent again among them."""
        self._defer_unsent()
        while self._disconnected or not self._replies.is_over:
            arrived = False
            for message in self._replies.poll():
                arrived = True
                yield message
                del message
            if self._disconnected and time.monotonic() - self._polled >= POLL_SECONDS:
                self._polled = time.monotonic()
                self._fail_expired()
                self._resend_reconnected()
            if not arrived:
                self._defer_lost()
                self._replies.pause()

    def _start_grace(self, task: Task, grace: float, why: str) -> bool:
        wait = min(grace, self._replies.seconds_left)
        self._attempts[task.member.city, task.model] += 1
        if not wait or self._attempts[task.member.city, task.model] > MAX_ATTEMPTS:
            return False
        self._disconnected[task] = time.monotonic() + wait
        self._log.notify(f"{task.member.city}: {why}; waiting up to {wait:.0f} s for it to return")
        return True

    def _defer_unsent(self) -> None:
        self._defer_or_fail(self._log.withdraw(self._replies.unsent), self._grace, DISCONNECTED)

    def _defer_lost(self) -> None:
        grace = max(self._grace, LOST_REPLY_GRACE_SECONDS)
        self._defer_or_fail(self._liveness.withdraw_lost(), grace, REPLY_LOST)

    def _defer_or_fail(self, tasks: Iterable[Task], grace: float, why: str) -> None:
        for task in tasks:
            if not self._start_grace(task, grace, why):
                self._log.fail(task, why)

    def _fail_expired(self) -> None:
        expired = [t for t, end in self._disconnected.items() if end <= time.monotonic()]
        for task in expired:
            del self._disconnected[task]
            self._log.fail(task, "its node did not reconnect within the grace period")

    def _resend_reconnected(self) -> None:
        for why in self._discovery.poll():
            self._log.reject("discovery", why)
        back = [t for t in self._disconnected if self._discovery.is_connected(t.member.city)]
        for task in back:
            del self._disconnected[task]
            self._log.notify(f"{task.member.city}: reconnected; asked again")
        if back:
            self._replies.send(self._resend(back, self._replies.seconds_left))
            self._defer_unsent()
