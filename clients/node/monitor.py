"""Monitors the process that answers a request, and makes the error reply if it exceeds a limit.

Limits of the system end the process silently: by a signal, or from within a library. The process
that monitors it then reports the failure to the coordinator, and the next request is answered. If
somebody killed the process (SIGKILL: an administrator, or Linux when it is out of memory), the
request is sent again instead, as after a power cut.
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
"""Exit statuses of a request's process that ran out of memory, or lost the SuperNode. Libraries end
a process with other statuses if it gets no memory or no threads."""
MAX_MESSAGE_BYTES = 2**20
"""Size limit of one message from a request's process."""
SEND_SECONDS = 600.0
"""How long sending an answer may take beyond the time limit."""
NOT_OURS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""Signals that somebody else sent; a process that fails by itself ends with others."""


@dataclass(frozen=True)
class Outcome:
    """How a request's process ended."""

    why: str = ""
    """What ended it, for people; empty if it has answered."""
    reply: Message | None = None
    """The error reply to send in its place; None if there cannot be one."""
    ids: TaskIds | None = None
    """The task that the reply belongs to."""

    def push(self, client: TaskClient) -> None:
        """Send the error reply to the coordinator."""
        assert self.reply is not None
        assert self.ids is not None
        push_failure(client, self.reply, self.ids, self.why)


def watch(child: BaseProcess, receiver: Connection, limits: Limits) -> Outcome:
    """Wait until a request's process has ended; kill it when its time is over.

    Args:
        child: The process.
        receiver: Receives its messages.
        limits: Its limits; it applies those of memory and processor time itself.
    """
    end = time.monotonic() + limits.seconds
    received: dict[bytes, bytes] = {}
    late = False
    while child.is_alive():
        more = SEND_SECONDS if ANSWERED in received else 0.0
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
    """Which limit ended a process; None if something else did."""
    if late:
        return f"a request took longer than this node's limit of {limits.seconds:g} s"
    if status == -signal.SIGXCPU:
        return "a request took more processor time than this node's limit"
    if status == LOST or (status < 0 and -status in NOT_OURS):
        return None
    return f"a request needed more memory or threads than this node's limit ({limits.memory:g} GiB)"


def _failure(received: dict[bytes, bytes], why: str) -> Outcome:
    """The error reply to a message whose process has ended; its messages are not trusted."""
    try:
        ids, message = read_told(received[TASK], received[MESSAGE])
    except (KeyError, ValueError):
        return Outcome(why)
    text = f"the node failed: {why}; its owner can raise limits (--max-memory, --max-seconds)"
    return Outcome(why, Message(Error(FAILED, text), reply_to=message), ids)
