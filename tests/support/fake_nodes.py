"""Nodes without images: a ClientApp whose answers a test decides."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from fl_ppseg.config.sections import ModelConfig, TrainingConfig
from fl_ppseg.federation.message_content import Description, Reply, Request
from fl_ppseg.federation.messages import pack_description, pack_reply, unpack_request
from fl_ppseg.federation.roles import Role
from fl_ppseg.flower.grid import LazyGrid
from fl_ppseg.flower.in_process import InProcessGrid
from fl_ppseg.progress.events import Event, Notice, Replied, RoundFinished
from fl_ppseg.progress.observer import Observer, SilentObserver
from fl_ppseg.setr.names import withheld
from fl_ppseg.system.arrays import Arrays
from strategies.rounds.discovery import Discovery
from strategies.rounds.registry import Member, Registry

Answer = Callable[[Request, str], Reply | RecordDict | Error]

TRAIN = {"aachen": 1, "bochum": 2, "bremen": 3}
"""Training clients and what each adds to every weight; also their numbers of examples."""
VAL = ("lindau", "munster")


def request(**changes: Any) -> Request:
    """What every request of a small arm has in common."""
    values: dict[str, Any] = {
        "task": "describe",
        "run_id": "run",
        "round": 0,
        "num_rounds": 2,
        "arm": "plain",
        "seed": 0,
        "embedding": "uploaded",
        "num_classes": 2,
        "model": ModelConfig(),
        "training": TrainingConfig(),
    }
    return Request(**values | changes)


def reply(asked: Request, client: str, **changes: Any) -> Reply:
    """An honest answer: a step of the client's own in training, fixed counts in evaluation."""
    step = TRAIN.get(client, 1)
    values: dict[str, Any] = {
        "run_id": asked.run_id,
        "round": asked.round,
        "client": client,
        "num_examples": step,
        "loss": step / 4,
        "seconds": 0.5,
    }
    if asked.task == "train":
        kept = withheld(asked.embedding)
        values["arrays"] = {
            name: np.asarray(value + np.asarray(step, value.dtype))
            for name, value in asked.arrays.items()
            if name not in kept
        }
    else:
        values["confusion"] = np.array([[10, step], [0, 5]])
    return Reply(**values | changes)


def honest(asked: Request, client: str) -> Reply:
    return reply(asked, client)


class FakeNodes:
    """Nodes of the given clients, in the order of their node ids."""

    def __init__(
        self,
        clients: Mapping[str, Role],
        answers: Mapping[str, Answer],
        introductions: Mapping[str, RecordDict | Error] | None = None,
    ) -> None:
        self.asked: list[tuple[str, int, str]] = []
        """Task, round and client of every request, in the order of arrival."""
        self.weights: list[tuple[str, Arrays]] = []
        """Client and arrays of every request."""
        self._clients = list(clients.items())
        self._answers = answers
        self.introductions = dict(introductions or {})
        """What nodes say of themselves instead of the truth."""
        app = ClientApp()
        app.query()(self._describe)
        app.train()(self._work)
        app.evaluate()(self._work)
        self.grid = InProcessGrid(app, len(clients))
        """A grid of these nodes; node ids count from 2."""

    @property
    def registry(self) -> Registry:
        """The registry of these nodes."""
        return Registry(
            Member(node_id, client, role) for node_id, (client, role) in enumerate(self._clients, 2)
        )

    def discovery(self, observer: Observer | None = None) -> Discovery:
        """The discovery of these nodes, after its first poll."""
        discovery = Discovery(LazyGrid(self.grid), request(), observer or SilentObserver())
        discovery.poll()
        return discovery

    def _client(self, context: Context) -> tuple[str, Role]:
        return self._clients[int(str(context.node_config["partition-id"]))]

    def _describe(self, message: Message, context: Context) -> Message:
        client, role = self._client(context)
        description = Description(unpack_request(message.content).run_id, client, role)
        content = self.introductions.get(client, pack_description(description))
        return Message(content, reply_to=message)

    def _work(self, message: Message, context: Context) -> Message:
        client, _ = self._client(context)
        asked = unpack_request(message.content)
        self.asked.append((asked.task, asked.round, client))
        self.weights.append((client, asked.arrays))
        answer = self._answers.get(client, honest)(asked, client)
        content = packed(answer) if isinstance(answer, Reply) else answer
        return Message(content, reply_to=message)


def packed(answer: Reply) -> RecordDict:
    """A reply whose figures are what they are: an honest node would not let bad ones leave."""
    good = replace(answer, num_examples=1, loss=None)
    content = pack_reply(good, answer.arrays)
    loss = [] if answer.loss is None else [answer.loss]
    content.metric_records["figures"].update({"num_examples": answer.num_examples, "loss": loss})
    return content


def nodes(
    answers: Mapping[str, Answer] | None = None,
    introductions: Mapping[str, RecordDict | Error] | None = None,
) -> FakeNodes:
    """The training and val clients above; node ids run against the alphabet."""
    roles: dict[str, Role] = dict.fromkeys(VAL, "val") | dict.fromkeys(TRAIN, "train")
    return FakeNodes(dict(reversed(roles.items())), answers or {}, introductions)


class Listener(Observer):
    """Remembers what an observer is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.replies: list[tuple[str, str, int, int]] = []
        self.rounds: list[tuple[int, float | None, float | None]] = []

    def on_event(self, event: Event) -> None:
        match event:
            case Replied():
                self.replies.append((event.client, event.phase, event.num_done, event.num_expected))
            case RoundFinished():
                scores = event.scores
                self.rounds.append((event.round, event.train_loss, scores.mIoU if scores else None))
            case Notice():
                self.messages.append(event.text)
