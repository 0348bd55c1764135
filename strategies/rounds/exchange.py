"""The exchanges of a round: tasks packed into messages, replies checked one at a time."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
from flwr.app import ArrayRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fl_ppseg.federation.coded_replies import unpack_update
from fl_ppseg.federation.message_content import Reply
from fl_ppseg.federation.message_fields import MAX_PIXELS
from fl_ppseg.federation.messages import MessageError, pack_request
from fl_ppseg.flower.grid import Replies
from fl_ppseg.system.spans import span
from strategies.rounds.arm_run import ArmRun
from strategies.rounds.monitor import Monitor
from strategies.rounds.round_log import RoundLog
from strategies.rounds.tasks import Step, Task

Take = Callable[[Task, Reply], None]
"""Uses a good reply; raises ValueError with the reason if it turns out not to be good."""
T = TypeVar("T")


class Exchange:
    """Sends the tasks of one round and collects their replies."""

    def __init__(self, run: ArmRun, grid: Grid, log: RoundLog) -> None:
        self._run = run
        self._grid = grid
        self._log = log
        self._record: ArrayRecord | None = None
        self._monitor = Monitor(run, log, self._messages)

    def poll_nodes(self) -> None:
        """Update the registry; nodes that were refused are named in the round's results."""
        self._monitor.poll_nodes()

    def open_phase(
        self, phase: Step, tasks: Iterable[Task], record: ArrayRecord | None = None
    ) -> list[Message]:
        """Start a phase: its tasks are outstanding from now on. Returns their messages.

        Args:
            phase: What the nodes are asked to do.
            tasks: Which clients are asked, with which weights.
            record: Those weights as they are packed; None: they are not the same for all.
        """
        self._record = record
        self._log.tasks.open(phase)
        return self._messages(tasks, self._run.federation.round_timeout)

    def ask(
        self, phase: Step, tasks: Iterable[Task], least: int, read: Callable[[str, Reply], T]
    ) -> dict[str, T]:
        """Send the tasks of a step that carries no weights, and wait for the answers.

        Args:
            phase: The step.
            tasks: Which clients are asked.
            least: Good answers that are needed, whatever the quorum.
            read: What a client's answer says; raises ValueError with the reason if it is not good,
                and the client counts as one that did not answer.

        Returns:
            What the good answers say, by client.

        Raises:
            RunError: As `collect_updates`.
        """
        answers: dict[str, T] = {}

        def take(task: Task, reply: Reply) -> None:
            client = task.member.client
            answers[client] = read(client, reply)

        timeout = self._run.federation.round_timeout
        replies = self._grid.send_and_receive(self.open_phase(phase, tasks), timeout=timeout)
        self.collect_updates(replies, (), take, least)
        return answers

    def collect_updates(
        self, replies: Iterable[Message], allowed: Collection[str], take: Take, least: int = 0
    ) -> None:
        """Take good updates until all clients have replied and the quorum is reached.

        Args:
            replies: To the tasks of the phase.
            allowed: Names of the arrays that a reply must hold.
            take: Uses a good one.
            least: Good replies that are needed, whatever the quorum.

        Raises:
            RunError: If the quorum is not reached within the retries that the config allows.
        """
        self._monitor.least = least
        self._collect(replies, allowed, take)
        while self._monitor.num_missing > 0:
            timeout = self._run.federation.round_timeout
            replies = self._grid.send_and_receive(self._monitor.retry(), timeout=timeout)
            self._collect(replies, allowed, take)

    def wait_for(self, clients: Iterable[str]) -> list[str]:
        """Wait until the nodes of clients are connected, as long as a round waits for a quorum.

        Returns:
            The clients that are still missing then.
        """
        return self._monitor.wait_for(sorted(clients))

    def collect_scores(self, replies: Iterable[Message]) -> None:
        """Record the counts of an evaluation, if they fit what their clients reported before."""
        self._collect(replies, (), self._check_scoring)

    def _check_scoring(self, task: Task, reply: Reply) -> None:
        self._run.reported.check_scoring(task.member.client, reply)

    def _collect(self, replies: Iterable[Message], allowed: Collection[str], take: Take) -> None:
        assert isinstance(replies, Replies), "expected the replies of a LazyGrid"
        for task, reply in collect(self._monitor.watch(replies), self._log, allowed):
            try:
                with span("aggregation"):
                    take(task, reply)
            except ValueError as error:
                self._log.fail(task, str(error))
            else:
                self._log.accept(task, reply)
            del reply  # before the next one is fetched

    def _messages(self, tasks: Iterable[Task], ttl: float) -> list[Message]:
        with span("wire"):
            return pack(self._log, tasks, ttl, self._record)


def pack(
    log: RoundLog, tasks: Iterable[Task], ttl: float, record: ArrayRecord | None = None
) -> list[Message]:
    """Tasks of the current phase as messages, outstanding from now on.

    Args:
        log: The round's log, with its tasks.
        tasks: New ones, or ones to be sent again.
        ttl: Seconds after which a reply is of no use.
        record: The weights of all tasks, if they are packed already.

    Returns:
        The messages to send; weights that several clients get are packed once.
    """
    phase = log.tasks.phase
    kinds = {"train": MessageType.TRAIN, "evaluate": MessageType.EVALUATE}
    kind = kinds.get(phase, f"{MessageType.QUERY}.{phase}")
    packed: dict[tuple[int, int], RecordDict] = {}
    messages = []
    for task in tasks:
        same = id(task.arrays), id(task.sum)
        if same not in packed:
            request = replace(
                log.request, task=phase, round=log.round, arrays=task.arrays, sum=task.sum
            )
            packed[same] = pack_request(request, record)
        group = f"{log.round}/{phase}/{task.model or ''}"
        content = packed[same]
        message = Message(content, task.member.node_id, kind, ttl=ttl, group_id=group)
        log.tasks.send(task, message.metadata)
        messages.append(message)
    return messages


def collect(
    replies: Iterable[Message], log: RoundLog, allowed: Collection[str]
) -> Iterator[tuple[Task, Reply]]:
    """Yield the replies that fit their tasks, one at a time; reject the others with the reason.

    No reply of a node ends the run: a bad one is rejected alone. The caller tells the log of each
    reply whether it is accepted or has failed.

    Args:
        replies: Messages in any order.
        log: The round's log, with the outstanding tasks.
        allowed: Names of the arrays that a reply must hold.
    """
    for message in replies:
        task = log.tasks.answered_by(message.metadata.reply_to_message_id)
        if task is None:
            client = log.name_of(message.metadata.src_node_id)
            log.reject(client, "unexpected reply: no task is outstanding")
            continue
        try:
            with span("wire"):
                reply = _checked(message, task, log, allowed)
        except MessageError as error:
            log.fail(task, str(error))
            continue
        del message
        yield task, reply
        del reply
    log.close()


def _checked(message: Message, task: Task, log: RoundLog, allowed: Collection[str]) -> Reply:
    if message.has_error():
        raise MessageError(message.error.reason or f"error {message.error.code}")
    if not message.has_content():
        raise MessageError("empty reply")
    if message.metadata.src_node_id != task.member.node_id:
        raise MessageError("reply from another node")
    start = {name: task.arrays[name] for name in allowed}
    reply = unpack_update(message.content, start, log.request.training)
    if (reply.run_id, reply.round, reply.client) != (
        log.request.run_id,
        log.round,
        task.member.client,
    ):
        raise MessageError("reply to another run, round or client")
    _check_counts(reply, log)
    return reply


def _check_counts(reply: Reply, log: RoundLog) -> None:
    size = log.request.num_classes
    if reply.confusion is None:
        if log.tasks.phase == "evaluate":
            raise MessageError("expected confusion counts, got none")
        return
    if reply.confusion.shape != (size, size):
        raise MessageError(f"expected confusion counts of {size} classes")
    if log.tasks.phase != "evaluate":
        raise MessageError("expected no confusion counts after training")
    total, most = sum(map(int, np.ravel(reply.confusion))), reply.num_examples * MAX_PIXELS
    if total > most:
        raise MessageError(
            f"expected at most {most} pixels in {reply.num_examples} images, got {total}"
        )
