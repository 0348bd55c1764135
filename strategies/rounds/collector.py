"""The replies of one round: collected as they come, until the quorum is reached.

A city whose node disconnects is asked again when it is back within the grace period. A round that
misses its quorum is retried, a bounded number of times: all cities without a good update are asked
again once their nodes are connected. Good updates stay counted, and no city is counted twice.
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
from strategies.rounds.exchange import collect, open_phase, reopen
from strategies.rounds.reconnection import Reconnection
from strategies.rounds.reported_counts import ReportedCountsError
from strategies.rounds.round_log import Phase, RoundLog, Task

Take = Callable[[Task, Reply], None]
"""Uses a good reply; raises ValueError with the reason if it turns out not to be good."""


class ReplyCollector:
    """Sends the tasks of one round and collects their replies."""

    def __init__(self, run: ArmRun, grid: Grid, log: RoundLog) -> None:
        self._run = run
        self._grid = grid
        self._log = log

    def poll_nodes(self) -> None:
        """Update the registry; nodes that were refused are named in the round's results."""
        self._log.rejected.extend(self._run.discovery.poll())

    def open_phase(self, phase: Phase, tasks: Iterable[Task]) -> list[Message]:
        """Start an exchange: its tasks are outstanding from now on. Returns their messages."""
        return open_phase(phase, self._log, tasks, self._run.federation.round_timeout)

    def replies(
        self, messages: Iterable[Message], allowed: Collection[str]
    ) -> Iterator[tuple[Task, Reply]]:
        """The good replies of an exchange, those of cities that were asked again among them."""
        reconnection = None
        if isinstance(messages, Replies):
            reconnection = Reconnection(
                messages,
                self._log,
                self._run.discovery,
                self._reopen,
                self._run.federation.grace_seconds,
            )
        return collect(messages, self._log, allowed, reconnection)

    def collect_updates(
        self, messages: Iterable[Message], allowed: Collection[str], take: Take
    ) -> None:
        """Take good updates until all cities have replied and the quorum is reached.

        Raises:
            RunError: If the quorum is not reached within the retries that the config allows.
        """
        num_retries = self._run.federation.max_retries
        for retry in range(num_retries + 1):
            if retry:
                messages = self._retry(f"retry {retry} of {num_retries}")
            for task, reply in self.replies(messages, allowed):
                try:
                    take(task, reply)
                except ValueError as error:
                    self._log.fail(task, str(error))
                    continue
                self._log.accept(task, reply)
            if self._num_missing() <= 0:
                return
        tries = f" after {num_retries + 1} tries" if num_retries else ""
        raise RunError(
            f"arm {self._run.request.arm}, round {self._log.round}: {self._shortfall()}{tries} "
            f"({self._log.reasons()})"
        )

    def collect_scores(self, messages: Iterable[Message]) -> None:
        """Record the counts of an evaluation, if they fit what their cities reported before."""
        for task, reply in self.replies(messages, ()):
            try:
                self._run.reported.check_scoring(task.member.city, reply)
            except ReportedCountsError as error:
                self._log.fail(task, str(error))
                continue
            self._log.accept(task, reply)

    def _num_missing(self) -> int:
        return self._quorum() - self._log.num_trained

    def _quorum(self) -> int:
        federation, num_asked = self._run.federation, self._log.num_asked
        quorum = math.ceil(federation.min_replies * num_asked)
        return max(1, quorum, min(num_asked, federation.fewest_replies))

    def _shortfall(self) -> str:
        log = self._log
        return (
            f"expected good updates from {self._quorum()} of {log.num_asked} cities, got "
            f"{log.num_trained}"
        )

    def _retry(self, which: str) -> Iterable[Message]:
        """Ask the cities without a good update again, once enough of them are connected."""
        failed = [task.member.city for task in self._log.failed]
        self._log.notify(f"{self._shortfall()}; asking {', '.join(failed)} again ({which})")
        self._wait_for(failed)
        tasks, self._log.failed = self._log.failed, []
        timeout = self._run.federation.round_timeout
        return self._grid.send_and_receive(self._reopen(tasks, timeout), timeout=timeout)

    def _wait_for(self, cities: Sequence[str]) -> None:
        discovery, seconds = self._run.discovery, self._run.federation.wait_seconds
        start = time.monotonic()
        is_said = False
        while time.monotonic() - start < seconds:
            self.poll_nodes()
            missing = [city for city in cities if not discovery.is_connected(city)]
            if len(cities) - len(missing) >= self._num_missing():
                return
            if not is_said:
                is_said = True
                names = ", ".join(missing)
                self._log.notify(f"waiting up to {seconds:.0f} s for the nodes of {names}")
            discovery.pause()

    def _reopen(self, tasks: Sequence[Task], ttl: float) -> list[Message]:
        """The same tasks, outstanding again, for the nodes that their cities have now."""
        registry = self._run.discovery.registry
        now = [replace(task, member=registry.of_city(task.member.city)) for task in tasks]
        return reopen(self._log, now, ttl)
