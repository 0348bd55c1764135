"""The monitor of a round: decides what becomes of the tasks that get no good reply.

Flower delivers a message to a node once. When the node disconnects, an error takes the place of its
reply and the work is lost, though the node may be back a minute later. Within a grace period the
client's node is looked for, under whatever node id, and sent the same task again.

Flower 1.41's SuperNode takes one message at a time and hands its reply over before it takes the
next. If one of its requests to the SuperLink fails on the way (under load its database is locked
for longer than the five seconds that it waits), the message or its reply is dropped and nobody is
told: the coordinator would wait until the round's deadline. So, when no reply has come for a while,
each node that owes one is probed with a query. A node that has answered the query, but not the task
before it, has nothing more to hand over: that reply is lost, and the client is asked again.

A round that misses its quorum is retried, a bounded number of times: all clients without a good
update are asked again once their nodes are connected. No client is counted twice.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from flwr.app import Message

from fl_ppseg.flower.grid import GONE, Replies
from fl_ppseg.system.errors import RunError
from strategies.rounds.arm_run import ArmRun
from strategies.rounds.round_log import RoundLog
from strategies.rounds.tasks import State, Task

QUIET_SECONDS: Final = 20.0
"""Nodes are probed after so long without any reply; then after twice as long, and so on."""
LOST_REPLY_GRACE_SECONDS: Final = 60.0
"""Least grace period of a node whose reply was lost: it was connected a moment ago."""
POLL_SECONDS = 1.0
"""Time between two polls for nodes that have reconnected."""
MAX_ATTEMPTS = 5
"""How often a client is asked again in one exchange: a node may crash at each of its tasks."""

DISCONNECTED: Final = "its node disconnected"
REPLY_LOST: Final = "its reply was lost"

Resend = Callable[[Sequence[Task], float], list[Message]]
"""(tasks, seconds until the deadline) -> messages to the nodes of their members."""


class Monitor:
    """Watches the tasks of a round."""

    def __init__(self, run: ArmRun, log: RoundLog, resend: Resend) -> None:
        self._federation = run.federation
        self._discovery = run.discovery
        self._log = log
        self._tasks = log.tasks
        self._resend = resend
        self._num_retries = 0
        self.least = 0
        """Good replies that are needed, whatever the quorum."""
        self._replies: Replies

    def poll_nodes(self) -> None:
        """Update the registry; nodes that were refused are named in the round's results."""
        self._log.rejected.extend(self._discovery.poll())

    def watch(self, replies: Replies) -> Iterator[Message]:
        """The replies of an exchange as they come, those to tasks sent again among them.

        Ends when no task waits for its node, and all replies have come or the deadline is over.
        """
        quiet, polled, self._replies = QUIET_SECONDS, 0.0, replies
        self._defer_unsent()
        while self._waiting() or (self._tasks.awaited and replies.seconds_left):
            asked = {task.message_id: task for task in self._tasks.awaited}
            has_arrived = False
            for message_id, message in replies.poll(asked):
                asked[message_id].is_fetched = has_arrived = True
                if not self._defer(message):
                    yield message
                del message
            if self._waiting() and time.monotonic() - polled >= POLL_SECONDS:
                polled = time.monotonic()
                self._fail_expired()
                self._resend_reconnected()
            if not has_arrived:
                self._defer_lost()
                if replies.seconds_quiet >= quiet:
                    quiet = 2 * replies.seconds_quiet
                    self._send_probes(quiet)
                replies.pause()

    @property
    def num_missing(self) -> int:
        """How many good updates are missing to the quorum; 0 or less: none."""
        return self._quorum() - len(self._tasks.in_state(State.DONE))

    def retry(self) -> list[Message]:
        """Ask the clients without a good update again, once enough of them are connected.

        Raises:
            RunError: As often as the config allows, it has been done.
        """
        allowed, log = self._federation.max_retries, self._log
        if self._num_retries == allowed:
            tries = f" after {allowed + 1} tries" if allowed else ""
            raise RunError(
                f"arm {log.request.arm}, round {log.round}: {self._shortfall()}{tries} "
                f"({log.reasons()})"
            )
        self._num_retries += 1
        tasks = self._tasks.in_state(State.FAILED)
        clients = [task.member.client for task in tasks]
        which = f"retry {self._num_retries} of {allowed}"
        log.notify(f"{self._shortfall()}; asking {', '.join(clients)} again ({which})")
        self.wait_for(clients, self.num_missing)
        return self._messages_again(tasks, self._federation.round_timeout)

    # Nodes that disconnect.

    def _waiting(self) -> list[Task]:
        return self._tasks.in_state(State.WAITING)

    def _defer(self, message: Message) -> bool:
        """Start the grace period of a task whose reply only says that its node disconnected.

        Returns:
            Whether the task waits for its node; False if the reply says something else, or there
            is no grace period or no attempt left.
        """
        if not message.has_error() or message.error.code not in GONE:
            return False
        task = self._tasks.answered_by(message.metadata.reply_to_message_id)
        grace = self._federation.grace_seconds
        return task is not None and self._start_grace(task, grace, DISCONNECTED)

    def _start_grace(self, task: Task, grace: float, why: str) -> bool:
        """Let a task wait for its node; False if there is no grace period or no attempt left."""
        seconds = min(grace, self._replies.seconds_left)
        task.num_waits += 1
        if not seconds or task.num_waits > MAX_ATTEMPTS:
            return False
        self._tasks.wait(task, time.monotonic() + seconds)
        client = task.member.client
        self._log.notify(f"{client}: {why}; waiting up to {seconds:.0f} s for it to return")
        return True

    def _defer_or_fail(self, tasks: Iterable[Task], grace: float, why: str) -> None:
        for task in tasks:
            if not self._start_grace(task, grace, why):
                self._log.fail(task, why)

    def _defer_unsent(self) -> None:
        unsent = [task for task in self._tasks.awaited if task.message_id in self._replies.unsent]
        self._defer_or_fail(unsent, self._federation.grace_seconds, DISCONNECTED)

    def _fail_expired(self) -> None:
        now = time.monotonic()
        for task in self._waiting():
            if task.waits_until <= now:
                self._log.fail(task, "its node did not reconnect within the grace period")

    def _resend_reconnected(self) -> None:
        for why in self._discovery.poll():
            self._log.reject("discovery", why)
        back = [t for t in self._waiting() if self._discovery.is_connected(t.member.client)]
        for task in back:
            self._log.notify(f"{task.member.client}: reconnected; asked again")
        if back:
            self._replies.send(self._messages_again(back, self._replies.seconds_left))
            self._defer_unsent()

    def _messages_again(self, tasks: Sequence[Task], seconds: float) -> list[Message]:
        """Messages with the same tasks, for the nodes that their clients have now."""
        for task in tasks:
            task.member = self._discovery.registry.of_client(task.member.client)
        return self._resend(tasks, seconds)

    # Replies that are lost.

    def _defer_lost(self) -> None:
        """A node that has answered a probe before the last poll has no reply to hand over."""
        lost = [task for task in self._tasks.awaited if task.is_alive]
        grace = max(self._federation.grace_seconds, LOST_REPLY_GRACE_SECONDS)
        self._defer_or_fail(lost, grace, REPLY_LOST)
        for task in self._tasks.awaited:
            task.is_alive = any([self._pull_answer(task, probe) for probe in [*task.probes]])

    def _pull_answer(self, task: Task, probe: str) -> bool:
        """Whether the node has answered a probe; it is forgotten then."""
        answer = self._discovery.pull_answer(probe)
        if answer is None:
            return False
        task.probes.remove(probe)
        return answer.has_content()  # else Flower says that the node disconnected or is late

    def _send_probes(self, seconds: float) -> None:
        for task in self._tasks.awaited:
            probe = self._discovery.send_probe(task.member.node_id, seconds)
            if probe is not None:
                task.probes.append(probe)

    # Rounds that miss their quorum.

    def _quorum(self) -> int:
        num_asked = self._tasks.num_asked
        quorum = math.ceil(self._federation.min_replies * num_asked)
        return max(1, self.least, quorum, min(num_asked, self._federation.fewest_replies))

    def _shortfall(self) -> str:
        quorum, num_asked = self._quorum(), self._tasks.num_asked
        num_good = len(self._tasks.in_state(State.DONE))
        return f"expected good updates from {quorum} of {num_asked} clients, got {num_good}"

    def wait_for(self, clients: Sequence[str], num_needed: int | None = None) -> list[str]:
        """Wait until the nodes of clients are connected, at most for the time of the config.

        Args:
            clients: Names of clients of the run.
            num_needed: How many of them are enough; None: all.

        Returns:
            The clients whose nodes are not connected.
        """
        seconds, start, is_said = self._federation.wait_seconds, time.monotonic(), False
        needed = len(clients) if num_needed is None else num_needed
        while True:
            self.poll_nodes()
            missing = [client for client in clients if not self._discovery.is_connected(client)]
            is_over = time.monotonic() - start >= seconds
            if is_over or len(clients) - len(missing) >= needed:
                return missing
            if not is_said:
                is_said = True
                names = ", ".join(missing)
                self._log.notify(f"waiting up to {seconds:.0f} s for the nodes of {names}")
            self._discovery.pause()
