"""One exchange of a round: tasks packed into messages, replies checked one at a time."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

import numpy as np
from flwr.app import Message, MessageType, Metadata, RecordDict

from fl_ppseg.federation.message_content import Reply
from fl_ppseg.federation.message_fields import MAX_PIXELS
from fl_ppseg.federation.messages import MessageError, pack_request, packed_size, unpack_reply
from strategies.rounds.reconnection import Reconnection
from strategies.rounds.round_log import Phase, RoundLog, Task


def open_phase(phase: Phase, log: RoundLog, tasks: Iterable[Task], ttl: float) -> list[Message]:
    """Start a phase: its tasks are outstanding in the log from now on.

    Args:
        phase: What the nodes are asked to do.
        log: The round's log.
        tasks: Which cities are asked, with which weights.
        ttl: Seconds after which a reply is of no use.

    Returns:
        The messages to send; weights that several cities get are packed once.
    """
    messages, sent = _pack(phase, log, tasks, ttl)
    log.open(phase, sent)
    return messages


def reopen(log: RoundLog, tasks: Iterable[Task], ttl: float) -> list[Message]:
    """Make tasks of the current phase outstanding again; returns the messages to send."""
    messages, sent = _pack(log.phase, log, tasks, ttl)
    log.reopen(sent)
    return messages


def collect(
    replies: Iterable[Message],
    log: RoundLog,
    allowed: Collection[str],
    reconnection: Reconnection | None = None,
) -> Iterator[tuple[Task, Reply]]:
    """Yield the replies that fit their tasks, one at a time; reject the others with the reason.

    No reply of a node ends the run: a bad one is rejected alone.

    Args:
        replies: Messages in any order.
        log: The round's log, with the outstanding tasks.
        allowed: Names of the arrays that a reply must hold.
        reconnection: Waits for nodes that disconnect; None: their tasks fail at once.
    """
    for message in replies if reconnection is None else reconnection.replies():
        task = log.pop(message.metadata)
        if task is None:
            city = log.name_of(message.metadata.src_node_id)
            log.reject(city, "unexpected reply: no task is outstanding")
            continue
        if reconnection is not None and reconnection.defer(task, message):
            continue
        try:
            yield task, _checked(message, task, log, allowed)
        except MessageError as error:
            log.fail(task, str(error))
        del message
    log.close()


def _pack(
    phase: Phase, log: RoundLog, tasks: Iterable[Task], ttl: float
) -> tuple[list[Message], list[tuple[Metadata, Task]]]:
    kind = MessageType.TRAIN if phase == "train" else MessageType.EVALUATE
    packed: dict[int, RecordDict] = {}
    messages, sent = [], []
    for task in tasks:
        if id(task.arrays) not in packed:
            request = replace(log.request, task=phase, round=log.round, arrays=task.arrays)
            packed[id(task.arrays)] = pack_request(request)
        group = f"{log.round}/{phase}/{task.model or ''}"
        content = packed[id(task.arrays)]
        message = Message(content, task.member.node_id, kind, ttl=ttl, group_id=group)
        sent.append((message.metadata, task))
        messages.append(message)
    return messages, sent


def _checked(message: Message, task: Task, log: RoundLog, allowed: Collection[str]) -> Reply:
    if message.has_error():
        raise MessageError(message.error.reason or f"error {message.error.code}")
    if not message.has_content():
        raise MessageError("empty reply")
    if message.metadata.src_node_id != task.member.node_id:
        raise MessageError("reply from another node")
    expected = packed_size({name: task.arrays[name] for name in allowed})
    reply = unpack_reply(message.content, allowed, expected)
    if (reply.run_id, reply.round, reply.city) != (log.request.run_id, log.round, task.member.city):
        raise MessageError("reply to another run, round or city")
    _check_counts(reply, log)
    return reply


def _check_counts(reply: Reply, log: RoundLog) -> None:
    size = log.request.num_classes
    if reply.confusion is None:
        if log.phase == "evaluate":
            raise MessageError("expected confusion counts, got none")
        return
    if reply.confusion.shape != (size, size):
        raise MessageError(f"expected confusion counts of {size} classes")
    if log.phase == "train":
        raise MessageError("expected no confusion counts after training")
    total, most = sum(map(int, np.ravel(reply.confusion))), reply.num_examples * MAX_PIXELS
    if total > most:
        raise MessageError(
            f"expected at most {most} pixels in {reply.num_examples} images, got {total}"
        )
