"""Delivery in a simulation: in the order of sending, each message once, none that is void."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from queue import Queue
from threading import Event, Thread

import pytest
from flwr.app import Message, RecordDict
from flwr.server.superlink.fleet.vce import vce_api
from flwr.server.superlink.linkstate import InMemoryLinkState, LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from fl_ppseg.flower.ordered_delivery import OrderedLinkState, hand_out, ordered_delivery

NUM_NODES = 5


class Simulation:
    """What Flower sets up before a simulation, without Ray."""

    def __init__(self) -> None:
        import flwr.simulation.run_simulation  # noqa: F401 - the package hides it by a function

        simulation = sys.modules["flwr.simulation.run_simulation"]
        factory = LinkStateFactory(
            FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory()
        )
        self.state = factory.state()
        run = replace(Run.create_empty(run_id=1), federation_id=NOOP_FEDERATION_ID)
        self.state.run_ids[1] = simulation.RunRecord(run=run)
        self.state.task_store[run.primary_task_id] = simulation.Task(
            task_id=run.primary_task_id, run_id=1
        )
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 7
        self.nodes = vce_api._register_nodes(NUM_NODES, factory)
        self.grid = InMemoryGrid(state_factory=factory)
        self.grid.set_run(run)

    def send(self, node_ids: list[int], ttl: float = 3600.0) -> list[str]:
        messages = [Message(RecordDict(), each, "train", ttl=ttl) for each in node_ids]
        return [str(each) for each in self.grid.push_messages(messages)]


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with ordered_delivery():
        yield Simulation()


def test_messages_are_handed_out_once_in_the_order_of_sending(simulation: Simulation) -> None:
    assert isinstance(simulation.state, OrderedLinkState)
    order = list(simulation.nodes)[::-1] + list(simulation.nodes)
    sent = simulation.send(order)
    queue: Queue[Message] = Queue()
    stop = Event()
    thread = Thread(target=hand_out, args=(simulation.state, queue, simulation.nodes, stop))
    thread.start()
    found = [queue.get(timeout=10) for _ in sent]
    stop.set()
    thread.join(timeout=10)
    assert [each.metadata.message_id for each in found] == sent
    assert [each.metadata.dst_node_id for each in found] == order
    assert all(each.metadata.delivered_at for each in found)
    assert not thread.is_alive() and queue.empty()
    assert simulation.state.get_message_ins(node_id=order[0], limit=1) == []


def test_messages_that_are_too_old_or_taken_back_are_not_handed_out(
    simulation: Simulation,
) -> None:
    node_id = next(iter(simulation.nodes))
    simulation.send([node_id], ttl=0.2)
    time.sleep(0.3)
    (taken_back,) = simulation.send([node_id])
    simulation.state.delete_messages({taken_back})
    (good,) = simulation.send([node_id])
    found = [simulation.state.take(0.01) for _ in range(4)]
    assert [each and each.metadata.message_id for each in found] == [None, None, good, None]


def test_flower_is_as_before_afterwards() -> None:
    before = vce_api.add_messages_to_queue
    with pytest.raises(KeyError), ordered_delivery():
        assert vce_api.add_messages_to_queue is hand_out
        raise KeyError
    assert vce_api.add_messages_to_queue is before
    assert type(Simulation().state) is InMemoryLinkState
