"""Answers that got lost on their way, told by asking the node something else.

Flower 1.41's SuperNode takes one message at a time and hands its answer over before it takes the
next. If one request of it to the SuperLink fails on the way (under load its database is locked for
longer than the five seconds that it waits), the message or its answer is dropped, and nobody is
told: the coordinator would wait until the round's deadline. So, when no answer has come for a
while, each node that owes one is asked who it is. A node that has answered that, and not what it
was asked before, has nothing more to hand over.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from fl_ppseg.flower.grid import Replies
from strategies.rounds.roll_call import RollCall
from strategies.rounds.round_log import Ask, RoundLog

QUIET_SECONDS: Final = 20.0
"""So long without any answer, and nodes are asked; then after twice as long, and so on."""


class LostAnswers:
    """Looks for lost answers in one exchange."""

    def __init__(self, replies: Replies, log: RoundLog, roll: RollCall) -> None:
        self._replies = replies
        self._log = log
        self._roll = roll
        self._quiet = QUIET_SECONDS
        self._asked: dict[str, str] = {}
        """Id of the question who a node is -> id of the message whose answer it owes."""
        self._free: set[str] = set()
        """Ids of messages whose nodes have answered since; one more look, and they are lost."""

    def look(self) -> list[Ask]:
        """The questions whose answers are lost, which nobody waits for any more.

        To be called after each look for replies that brought none.
        """
        lost = self._log.withdraw(self._free)
        self._replies.forget(self._free)
        self._free = set(self._answered())
        if self._replies.seconds_quiet >= self._quiet:
            self._quiet = 2 * self._replies.seconds_quiet
            self._ask(self._owing())
        return lost

    def _answered(self) -> Iterator[str]:
        """Ids of the messages whose nodes have answered that they are there."""
        for question, message_id in list(self._asked.items()):
            answer = self._roll.answer_to(question)
            if answer is not None:
                del self._asked[question]
                if answer.has_content():  # else Flower says that the node has gone, or is too late
                    yield message_id

    def _owing(self) -> Iterator[tuple[str, int]]:
        """Ids of the messages without an answer, and of the nodes that have them."""
        for sent, ask in self._log.waiting:
            if sent.message_id in self._replies.pending:
                yield sent.message_id, ask.member.node_id

    def _ask(self, owing: Iterable[tuple[str, int]]) -> None:
        for message_id, node_id in owing:
            question = self._roll.ask(node_id, self._quiet)
            if question is not None:
                self._asked[question] = message_id
