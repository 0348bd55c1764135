"""The tasks of a round: what each client was asked for, and how far it has come.

A task is sent; then its reply is good (done) or not (failed), or its node disconnects and it waits
for it, to be sent again or to fail. Who is asked again in a retry had failed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from fl_ppseg.federation.message_content import SumPart
from fl_ppseg.federation.roles import SumStep
from fl_ppseg.progress.events import Phase
from fl_ppseg.system.arrays import Arrays, array_bytes
from strategies.rounds.registry import Member

Step = Phase | SumStep
"""What a phase asks of nodes."""


class State(Enum):
    """How far a task has come."""

    SENT = "sent"
    WAITING = "waiting for its node"
    DONE = "done"
    FAILED = "failed"


FOLLOWING: Final = {
    State.SENT: {State.WAITING, State.DONE, State.FAILED},
    State.WAITING: {State.SENT, State.FAILED},
    State.DONE: set[State](),
    State.FAILED: {State.SENT},
}
"""State of a task -> the states that may follow."""


class Sent(Protocol):
    """What is known of a message; its id is filled in when it is sent."""

    @property
    def message_id(self) -> str:
        """Names the message; empty before it is sent."""


@dataclass(eq=False)
class Task:
    """One client's work in a phase: train, or evaluate, these weights."""

    member: Member
    arrays: Arrays = field(repr=False)
    model: str | None = None
    """Client that this model belongs to, where every client has its own."""
    sum: SumPart | None = field(default=None, repr=False)
    """What secure aggregation says to this client."""
    sent_bytes: int | None = None
    """Of the weights as they travel; None: as they are."""
    state: State = State.SENT
    sent: Sent | None = None
    """The newest message that carries this task."""
    is_fetched: bool = False
    """Whether a reply to that message has come, whatever it is: there is no other."""
    probes: list[str] = field(default_factory=list)
    """Ids of the probes of its node since that message, as far as they are not answered."""
    is_alive: bool = False
    """Whether its node has answered a probe, which it gets after the message."""
    num_waits: int = 0
    """How often its node was waited for in this exchange."""
    waits_until: float = 0.0
    """End of the grace period, in seconds of the monotonic clock."""

    @property
    def message_id(self) -> str:
        """Id of the newest message that carries this task; empty before it is sent."""
        return "" if self.sent is None else self.sent.message_id

    @property
    def bytes_down(self) -> int:
        """Bytes of the weights as they travel, and of what secure aggregation says."""
        said = 0 if self.sum is None else self.sum.num_bytes
        sent = self.sent_bytes
        return said + (array_bytes(self.arrays) if sent is None else sent)


class TaskTable:
    """The tasks of the current phase."""

    def __init__(self) -> None:
        self.phase: Step = "train"
        self._tasks: dict[Task, None] = {}

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    @property
    def num_asked(self) -> int:
        """Number of tasks of this phase."""
        return len(self._tasks)

    def in_state(self, state: State) -> list[Task]:
        """The tasks of a state, in the order in which they came to it."""
        return [task for task in self._tasks if task.state is state]

    @property
    def awaited(self) -> list[Task]:
        """The tasks whose replies are to be fetched."""
        return [task for task in self.in_state(State.SENT) if not task.is_fetched]

    def answered_by(self, message_id: str) -> Task | None:
        """The task to whose message this is a reply; None if none such is outstanding.

        They are matched by the id of the message: an error that Flower itself replies names no
        node.
        """
        sent = (task for task in self.in_state(State.SENT) if task.message_id == message_id)
        return next(sent, None) if message_id else None

    def open(self, phase: Step) -> None:
        """Start a phase: there is no task yet."""
        self.phase = phase
        self._tasks = {}

    def send(self, task: Task, message: Sent) -> None:
        """Enter a task that is sent in a message, for the first time or again."""
        if task in self._tasks:
            self._move(task, State.SENT)
        self._tasks[task] = None
        task.sent, task.is_fetched, task.probes, task.is_alive = message, False, [], False

    def wait(self, task: Task, until: float) -> None:
        """A task waits for its node, until a moment of the monotonic clock in seconds."""
        self._move(task, State.WAITING)
        task.waits_until = until

    def finish(self, task: Task) -> None:
        """A task got a good reply; its weights are let go."""
        self._move(task, State.DONE)
        task.arrays, task.sum = {}, None

    def fail(self, task: Task) -> None:
        """A task gets no good reply, unless it is sent again; its waits are counted anew then."""
        self._move(task, State.FAILED)
        task.num_waits = 0

    def _move(self, task: Task, state: State) -> None:
        if state not in FOLLOWING[task.state]:
            raise ValueError(f"{task.member.client}: a task that is {task.state.value} is {state}")
        del self._tasks[task]
        self._tasks[task] = None
        task.state = state


def longest_first(tasks: Iterable[Task], num_examples: dict[str, int]) -> list[Task]:
    """Tasks in the order in which they are sent: the client with most images first.

    Args:
        tasks: The tasks.
        num_examples: Images by client; a client that is missing counts like the largest.
    """
    most = max(num_examples.values(), default=0)

    def order(task: Task) -> tuple[int, str, str]:
        return -num_examples.get(task.member.client, most), task.member.client, task.model or ""

    return sorted(tasks, key=order)
