"""One exchange of a round: requests out, replies in, each checked, or rejected alone."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

import numpy as np
from flwr.app import Message, MessageType, Metadata, RecordDict

from fl_ppseg.federation.message_content import Reply
from fl_ppseg.federation.message_fields import MAX_PIXELS
from fl_ppseg.federation.messages import MessageError, pack_request, packed_size, unpack_reply
from strategies.rounds.comebacks import Comebacks
from strategies.rounds.round_log import Ask, Phase, RoundLog


def requests(phase: Phase, log: RoundLog, asks: Iterable[Ask], ttl: float) -> list[Message]:
    """The messages of an exchange; weights that several cities get are packed once.

    Args:
        phase: What to ask for.
        log: The round's log, which from now on waits for the answers.
        asks: Who is asked with which weights.
        ttl: Seconds after which nobody needs an answer.
    """
    messages, waiting = _packed(phase, log, asks, ttl)
    log.open(phase, waiting)
    return messages


def repeated(log: RoundLog, asks: Iterable[Ask], ttl: float) -> list[Message]:
    """The messages to cities that are asked again in the phase that is under way."""
    messages, waiting = _packed(log.phase, log, asks, ttl)
    log.open_again(waiting)
    return messages


def collect(
    replies: Iterable[Message],
    log: RoundLog,
    allowed: Collection[str],
    comebacks: Comebacks | None = None,
) -> Iterator[tuple[Ask, Reply]]:
    """Replies that are what was asked for, one at a time; the others are rejected and said.

    Nothing that a node may answer ends the run: a bad message counts for nothing, alone.

    Args:
        replies: Messages in any order.
        log: The round's log; knows who was asked.
        allowed: Names of the arrays that a reply must hold.
        comebacks: Cities whose node has gone get a second chance there; none: they have failed.
    """
    for message in replies if comebacks is None else comebacks.arrivals():
        ask = log.take(message.metadata)
        if ask is None:
            log.reject(log.name_of(message.metadata.src_node_id), "an answer that nobody waits for")
            continue
        if comebacks is not None and comebacks.takes(ask, message):
            continue
        try:
            yield ask, _checked(message, ask, log, allowed)
        except MessageError as error:
            log.fail(ask, str(error))
        del message
    log.close()


def _packed(
    phase: Phase, log: RoundLog, asks: Iterable[Ask], ttl: float
) -> tuple[list[Message], list[tuple[Metadata, Ask]]]:
    kind = MessageType.TRAIN if phase == "train" else MessageType.EVALUATE
    packed: dict[int, RecordDict] = {}
    messages, waiting = [], []
    for ask in asks:
        if id(ask.arrays) not in packed:
            request = replace(log.request, task=phase, round=log.round, arrays=ask.arrays)
            packed[id(ask.arrays)] = pack_request(request)
        group = f"{log.round}/{phase}/{ask.model or ''}"
        content = packed[id(ask.arrays)]
        message = Message(content, ask.member.node_id, kind, ttl=ttl, group_id=group)
        waiting.append((message.metadata, ask))
        messages.append(message)
    return messages, waiting


def _checked(message: Message, ask: Ask, log: RoundLog, allowed: Collection[str]) -> Reply:
    if message.has_error():
        raise MessageError(message.error.reason or f"error {message.error.code}")
    if not message.has_content():
        raise MessageError("an answer that holds nothing")
    if message.metadata.src_node_id != ask.member.node_id:
        raise MessageError("an answer from another node")
    expected = packed_size({name: ask.arrays[name] for name in allowed})
    reply = unpack_reply(message.content, allowed, expected)
    if (reply.run_id, reply.round, reply.city) != (log.request.run_id, log.round, ask.member.city):
        raise MessageError("an answer to another run, round or city")
    _check_counts(reply, log)
    return reply


def _check_counts(reply: Reply, log: RoundLog) -> None:
    size = log.request.num_classes
    if reply.confusion is None:
        if log.phase == "evaluate":
            raise MessageError("no confusion counts")
        return
    if reply.confusion.shape != (size, size):
        raise MessageError("confusion counts of another number of classes")
    if log.phase == "train":
        raise MessageError("confusion counts after training")
    total, most = sum(map(int, np.ravel(reply.confusion))), reply.num_examples * MAX_PIXELS
    if total > most:
        raise MessageError(f"{total} pixels in {reply.num_examples} images, at most {most} can be")
