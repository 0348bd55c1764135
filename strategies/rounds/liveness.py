"""Liveness: nodes that owe a reply are probed, which shows whether the reply was lost.

Flower 1.41's SuperNode takes one message at a time and hands its reply over before it takes the
next. If one of its requests to the SuperLink fails on the way (under load its database is locked
for longer than the five seconds that it waits), the message or its reply is dropped and nobody is
told: the coordinator would wait until the round's deadline. So, when no reply has come for a while,
each node that owes one is sent a query. A node that has answered the query, but not the task before
it, has nothing more to hand over: that reply is lost.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from fl_ppseg.flower.grid import Replies
from strategies.rounds.discovery import Discovery
from strategies.rounds.round_log import RoundLog, Task

QUIET_SECONDS: Final = 20.0
"""Nodes are probed after so long without any reply; then after twice as long, and so on."""


class LivenessProbe:
    """Finds the lost replies of one exchange."""

    def __init__(self, replies: Replies, log: RoundLog, discovery: Discovery) -> None:
        self._replies = replies
        self._log = log
        self._discovery = discovery
        self._quiet = QUIET_SECONDS
        self._probes: dict[str, str] = {}
        """Id of a probe -> id of the message whose reply its node owes."""
        self._alive: set[str] = set()
        """Ids of messages whose nodes have answered a probe since; lost after one more poll."""

    def withdraw_lost(self) -> list[Task]:
        """Take the tasks whose replies are lost out of the outstanding ones, and probe if quiet.

        Call it after each poll for replies that brought none.
        """
        lost = self._log.withdraw(self._alive)
        self._replies.forget(self._alive)
        self._alive = set(self._answered())
        if self._replies.seconds_quiet >= self._quiet:
            self._quiet = 2 * self._replies.seconds_quiet
            self._send_probes(self._owing())
        return lost

    def _answered(self) -> Iterator[str]:
        """Ids of the messages whose nodes have answered their probe."""
        for probe_id, message_id in list(self._probes.items()):
            answer = self._discovery.pull_answer(probe_id)
            if answer is not None:
                del self._probes[probe_id]
                if answer.has_content():  # else Flower says that the node disconnected or is late
                    yield message_id

    def _owing(self) -> Iterator[tuple[str, int]]:
        """Ids of the messages without a reply, and of the nodes that have them."""
        for sent, task in self._log.outstanding:
            if sent.message_id in self._replies.pending:
                yield sent.message_id, task.member.node_id

    def _send_probes(self, owing: Iterable[tuple[str, int]]) -> None:
        for message_id, node_id in owing:
            probe_id = self._discovery.send_probe(node_id, self._quiet)
            if probe_id is not None:
                self._probes[probe_id] = message_id
