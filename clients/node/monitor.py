"""A request's process under watch: what it tells of itself, and what is said when it ends badly.

Limits of the system end the process without a word: by a signal, or from within a library. The
coordinator is then told so by the process that watched, and the next request is
answered. A process that somebody killed (SIGKILL: an administrator, or Linux that ran out of
memory) is asked for again instead, as after a power cut.
"""

import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from flwr.app import Error, Message

from clients.node.limits import Limits
from fl_ppseg.federation.messages import FAILED
from fl_ppseg.flower.tasks import (
    ANSWERED,
    MESSAGE,
    TASK,
    TaskClient,
    TaskIds,
    push_failure,
    read_told,
)

OUT_OF_MEMORY, LOST = 77, 78
"""Exit statuses of a request's process that had no memory for its request, or lost the SuperNode.
Others are those of libraries, which end a process that gets no memory or no threads."""
MAX_MESSAGE_BYTES = 2**20
"""Bytes of one word of a request's process."""
HAND_OVER_SECONDS = 600.0
"""How long an answer that is on its way may go on past the time limit."""
NOT_OURS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""Signals that somebody sent; what a process does to itself ends it with others."""


@dataclass(frozen=True)
class Outcome:
    """How a request's process ended."""

    why: str = ""
    """What ended it, for a person; nothing: it has answered."""
    reply: Message | None = None
    """What the coordinator is to be told in its place; none: it cannot be told."""
    ids: TaskIds | None = None
    """Whose reply it is."""

    def push(self, client: TaskClient) -> None:
        """Tell the coordinator."""
        assert self.reply is not None
        assert self.ids is not None
        push_failure(client, self.reply, self.ids, self.why)


def watch(child: BaseProcess, receiver: Connection, limits: Limits) -> Outcome:
    """Wait until a request's process has ended, and end it when its time is over.

    Args:
        child: The process.
        receiver: The other end of what it tells.
        limits: What it may take; memory and processor time it holds itself.
    """
    end = time.monotonic() + limits.seconds
    received: dict[bytes, bytes] = {}
    late = False
    while child.is_alive():
        more = HAND_OVER_SECONDS if ANSWERED in received else 0.0
        left = end + more - time.monotonic()
        if left <= 0:
            late = True
            child.kill()
            child.join()
        elif receiver.closed:
            child.join(left)
        elif receiver in wait([receiver, child.sentinel], left):
            _receive(receiver, received)
    child.join()
    while not receiver.closed and receiver.poll():
        _receive(receiver, received)
    if child.exitcode == 0:
        return Outcome()
    why = _exceeded_limit(child.exitcode or 0, late, limits)
    if why is None or ANSWERED in received:
        return Outcome(why or f"its process ended with status {child.exitcode}")
    return _failure(received, why)


def _receive(receiver: Connection, received: dict[bytes, bytes]) -> None:
    try:
        word = receiver.recv_bytes(MAX_MESSAGE_BYTES)
    except (EOFError, OSError):
        receiver.close()
        return
    if word[:1] in (TASK, MESSAGE, ANSWERED):
        received.setdefault(word[:1], word[1:])


def _exceeded_limit(status: int, late: bool, limits: Limits) -> str | None:
    """Which limit ended a process; none: something else did."""
    if late:
        return f"a request took more than the {limits.seconds:g} s that this node gives"
    if status == -signal.SIGXCPU:
        return "a request took more processor time than this node gives"
    if status == LOST or (status < 0 and -status in NOT_OURS):
        return None
    return f"a request wanted more memory or threads than this node gives ({limits.memory:g} GiB)"


def _failure(received: dict[bytes, bytes], why: str) -> Outcome:
    """The reply to a message whose process is gone; what that told may be anything."""
    try:
        ids, message = read_told(received[TASK], received[MESSAGE])
    except (KeyError, ValueError):
        return Outcome(why)
    text = f"the node failed: {why}; its owner can raise it (--max-memory, --max-seconds)"
    return Outcome(why, Message(Error(FAILED, text), reply_to=message), ids)
