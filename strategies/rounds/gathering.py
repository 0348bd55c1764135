"""The exchanges of one round: replies as they come, second chances, and the quorum.

A city whose node goes is asked again when it is back within the grace time. A round that misses its
quorum asks all who gave no good update again, once their nodes are there, a bounded number of
times; each step is said. What was good stays counted: no city is counted twice.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from flwr.app import Message
from flwr.serverapp import Grid

from fl_ppseg.federation.message_content import Reply
from fl_ppseg.flower.grid import Replies
from fl_ppseg.system.errors import RunError
from strategies.rounds.arm_run import ArmRun
from strategies.rounds.claims import ClaimError
from strategies.rounds.comebacks import Comebacks
from strategies.rounds.exchange import collect, repeated, requests
from strategies.rounds.round_log import Ask, Phase, RoundLog

Take = Callable[[Ask, Reply], None]
"""Does with a good reply what is to be done; raises ValueError where it is not good after all."""


class Gathering:
    """How one round talks with its cities."""

    def __init__(self, run: ArmRun, grid: Grid, log: RoundLog) -> None:
        self._run = run
        self._grid = grid
        self._log = log

    def look(self) -> None:
        """See who is there now; nodes that had to be left out stand in the round's results."""
        for why in self._run.roll.look():
            self._log.rejected.append(why)

    def ask(self, phase: Phase, asks: Iterable[Ask]) -> list[Message]:
        """The messages of an exchange."""
        return requests(phase, self._log, asks, self._run.federation.round_timeout)

    def answers(
        self, replies: Iterable[Message], allowed: Collection[str]
    ) -> Iterator[tuple[Ask, Reply]]:
        """The good replies of an exchange, those of cities that were asked again among them."""
        comebacks = None
        if isinstance(replies, Replies):
            grace = self._run.federation.grace_seconds
            comebacks = Comebacks(replies, self._log, self._run.roll, self._asked_again, grace)
        return collect(replies, self._log, allowed, comebacks)

    def gather(self, replies: Iterable[Message], allowed: Collection[str], take: Take) -> None:
        """Take good updates until all have answered and the quorum is reached.

        Raises:
            RunError: If it is not reached in the tries that the config allows.
        """
        num_retries = self._run.federation.max_retries
        for retry in range(num_retries + 1):
            if retry:
                replies = self._once_more(f"retry {retry} of {num_retries}")
            for ask, reply in self.answers(replies, allowed):
                try:
                    take(ask, reply)
                except ValueError as error:
                    self._log.fail(ask, str(error))
                    continue
                self._log.accept(ask, reply)
            if self._num_missing() <= 0:
                return
        tries = f" after {num_retries + 1} tries" if num_retries else ""
        raise RunError(
            f"arm {self._run.request.arm}, round {self._log.round}: {self._so_far()}{tries} "
            f"({self._log.why()})"
        )

    def score(self, replies: Iterable[Message]) -> None:
        """Write down the counts of an evaluation, as far as they fit what their cities said."""
        for ask, reply in self.answers(replies, ()):
            try:
                self._run.claims.check_scoring(ask.member.city, reply)
            except ClaimError as error:
                self._log.fail(ask, str(error))
                continue
            self._log.accept(ask, reply)

    def _num_missing(self) -> int:
        return self._wanted() - self._log.num_trained

    def _wanted(self) -> int:
        federation, num_asked = self._run.federation, self._log.num_asked
        quorum = math.ceil(federation.min_replies * num_asked)
        return max(1, quorum, min(num_asked, federation.fewest_replies))

    def _so_far(self) -> str:
        log = self._log
        return (
            f"{log.num_trained} of {log.num_asked} cities gave a good update, wanted "
            f"{self._wanted()}"
        )

    def _once_more(self, which: str) -> Iterable[Message]:
        """Ask those who gave no good update again, once enough of them are there."""
        failed = [ask.member.city for ask in self._log.failed]
        self._log.say(f"{self._so_far()}; asking {', '.join(failed)} again ({which})")
        self._wait_for(failed)
        asks, self._log.failed = self._log.failed, []
        timeout = self._run.federation.round_timeout
        return self._grid.send_and_receive(self._asked_again(asks, timeout), timeout=timeout)

    def _wait_for(self, cities: Sequence[str]) -> None:
        roll, seconds = self._run.roll, self._run.federation.wait_seconds
        start = time.monotonic()
        is_said = False
        while time.monotonic() - start < seconds:
            self.look()
            missing = [city for city in cities if not roll.is_here(city)]
            if len(cities) - len(missing) >= self._num_missing():
                return
            if not is_said:
                is_said = True
                self._log.say(f"waiting up to {seconds:.0f} s for nodes of {', '.join(missing)}")
            roll.pause()

    def _asked_again(self, asks: Sequence[Ask], ttl: float) -> list[Message]:
        """The same questions to the nodes that their cities have now."""
        roster = self._run.roll.roster
        now = [replace(ask, member=roster.of_city(ask.member.city)) for ask in asks]
        return repeated(self._log, now, ttl)
