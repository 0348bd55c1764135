"""The in-process grid keeps Flower's contract; a cluster that cannot start says so."""

from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fl_ppseg.flower.in_process import InProcessGrid, run_in_process
from fl_ppseg.flower.ray_cluster import RayCluster, run_on_ray
from fl_ppseg.system.errors import RunError

Log = list[tuple[int, int]]


@pytest.fixture
def log() -> Log:
    """(partition id, number asked) of each message, in the order of work."""
    return []


@pytest.fixture
def client_app(log: Log) -> ClientApp:
    app = ClientApp()

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        number = message.content.config_records["asked"]["number"]
        partition_id = context.node_config["partition-id"]
        log.append((int(str(partition_id)), int(str(number))))
        content = RecordDict({"answer": ConfigRecord({"number": number, "at": partition_id})})
        return Message(content, reply_to=message)

    return app


def ask(grid: Grid, number: int, node_id: int) -> Message:
    content = RecordDict({"asked": ConfigRecord({"number": number})})
    return grid.create_message(content, MessageType.QUERY, node_id, group_id=f"g{number}")


def test_every_node_is_another_partition(client_app: ClientApp, log: Log) -> None:
    grid = InProcessGrid(client_app, 4)
    node_ids = list(grid.get_node_ids())
    assert len(set(node_ids)) == 4
    list(grid.send_and_receive([ask(grid, 0, node_id) for node_id in node_ids]))
    assert sorted(log) == [(partition_id, 0) for partition_id in range(4)]


def test_work_waits_until_its_reply_is_pulled(client_app: ClientApp, log: Log) -> None:
    """So one reply at a time is in memory."""
    grid = InProcessGrid(client_app, 3)
    node_ids = list(grid.get_node_ids())
    pushed = list(grid.push_messages([ask(grid, n, i) for n, i in enumerate(node_ids)]))
    assert len(set(pushed)) == 3
    assert log == []
    replies = iter(grid.pull_messages(reversed(pushed)))
    next(replies)
    assert log == [(2, 2)]
    assert len(list(replies)) == 2
    assert log == [(2, 2), (1, 1), (0, 0)]


def test_replies_name_sender_message_and_group(client_app: ClientApp) -> None:
    grid = InProcessGrid(client_app, 2)
    node_ids = list(grid.get_node_ids())
    pushed = list(grid.push_messages([ask(grid, 7, node_ids[1])]))
    (reply,) = grid.pull_messages(pushed)
    assert reply.metadata.src_node_id == node_ids[1]
    assert reply.metadata.reply_to_message_id == pushed[0]
    assert reply.metadata.group_id == "g7"
    assert reply.content.config_records["answer"]["number"] == 7


def test_server_app_runs_to_its_end_and_its_error_comes_through(client_app: ClientApp) -> None:
    seen = []

    def server(work: Callable[[Grid], None]) -> ServerApp:
        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            work(grid)

        return app

    run_in_process(server(lambda grid: seen.append(len(list(grid.get_node_ids())))), client_app, 3)
    assert seen == [3]

    def fail(grid: Grid) -> None:
        raise RunError("no more")

    with pytest.raises(RunError, match="no more"):
        run_in_process(server(fail), client_app, 1)


def test_ray_that_does_not_start_is_one_clear_error(
    client_app: ClientApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_ray(**_: object) -> None:
        raise OSError("no shared memory")

    monkeypatch.setattr("ray.init", no_ray)
    cluster = RayCluster(2)
    try:
        with pytest.raises(RunError, match=r"no shared memory.*--engine in-process") as caught:
            run_on_ray(ServerApp(), client_app, 1, cluster)
        assert "\n" not in str(caught.value)
    finally:
        cluster.stop()
