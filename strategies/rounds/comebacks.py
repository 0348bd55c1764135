"""Cities whose node goes in the middle of a round, and that are asked again when it is back.

Flower gives a message to a node once. When the node goes, an error takes the place of its reply and
the work is lost, though the node may be back a minute later. Within a grace time its city is looked
for, under whatever node id, and asked the same again; so is a city whose answer was lost.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from flwr.app import Message

from fl_ppseg.flower.grid import GONE, Replies
from strategies.rounds.lost_answers import LostAnswers
from strategies.rounds.roll_call import RollCall
from strategies.rounds.round_log import Ask, RoundLog

LOST_SECONDS: Final = 60.0
"""How long, at least, the node of a lost answer is waited for: it was there a moment ago."""
LOOK_SECONDS = 1.0
"""Between two looks for nodes that have come back."""
MAX_TIMES = 5
"""How often a city is asked again in one exchange: a node may go over each of its answers."""

Resend = Callable[[Sequence[Ask], float], list[Message]]
"""(questions, seconds until the deadline) -> messages to the nodes that their cities have now."""


class Comebacks:
    """Joins second chances to the replies of one exchange."""

    def __init__(
        self, replies: Replies, log: RoundLog, roll: RollCall, resend: Resend, grace: float
    ) -> None:
        """Wait up to `grace` seconds for each city, and never beyond the exchange's deadline."""
        self._replies = replies
        self._log = log
        self._roll = roll
        self._resend = resend
        self._grace = grace
        self._lost = LostAnswers(replies, log, roll)
        self._gone: dict[Ask, float] = {}
        """Until when each is waited for."""
        self._times: Counter[tuple[str, str | None]] = Counter()
        self._looked = 0.0

    def takes(self, ask: Ask, reply: Message) -> bool:
        """Whether a reply only says that its node is gone; the city is then waited for."""
        is_gone = reply.has_error() and reply.error.code in GONE
        return is_gone and self._waits_for(ask, self._grace, "its node is gone")

    def arrivals(self) -> Iterator[Message]:
        """The replies as they come, those to the questions that are asked again among them."""
        self._take_unsent()
        while self._gone or not self._replies.is_over:
            arrived = False
            for message in self._replies.look():
                arrived = True
                yield message
                del message
            if self._gone and time.monotonic() - self._looked >= LOOK_SECONDS:
                self._looked = time.monotonic()
                self._give_up()
                self._ask_again()
            if not arrived:
                self._take_lost()
                self._replies.pause()

    def _waits_for(self, ask: Ask, grace: float, why: str) -> bool:
        wait = min(grace, self._replies.seconds_left)
        self._times[ask.member.city, ask.model] += 1
        if not wait or self._times[ask.member.city, ask.model] > MAX_TIMES:
            return False
        self._gone[ask] = time.monotonic() + wait
        self._log.say(f"{ask.member.city}: {why}; waiting up to {wait:.0f} s for it")
        return True

    def _take_unsent(self) -> None:
        self._take(self._log.withdraw(self._replies.unsent), self._grace, "its node is gone")

    def _take_lost(self) -> None:
        self._take(self._lost.look(), max(self._grace, LOST_SECONDS), "its answer was lost")

    def _take(self, asks: Iterable[Ask], grace: float, why: str) -> None:
        for ask in asks:
            if not self._waits_for(ask, grace, why):
                self._log.fail(ask, why)

    def _give_up(self) -> None:
        for ask in [ask for ask, end in self._gone.items() if end <= time.monotonic()]:
            del self._gone[ask]
            self._log.fail(ask, "its node is gone and did not come back in time")

    def _ask_again(self) -> None:
        for why in self._roll.look():
            self._log.reject("roll call", why)
        back = [ask for ask in self._gone if self._roll.is_here(ask.member.city)]
        for ask in back:
            del self._gone[ask]
            self._log.say(f"{ask.member.city}: is back and asked again")
        if back:
            self._replies.send(self._resend(back, self._replies.seconds_left))
            self._take_unsent()
