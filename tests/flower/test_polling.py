"""How often what has not come is asked for, in a program's own loops and in Flower's."""

import inspect
import re
import time
from types import SimpleNamespace

import pytest
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError, pull_objects
from flwr.superlink.grid import http_grid
from flwr.supernode import start_client_internal
from flwr.supernode.runtime import run_clientapp

import fl_ppseg.flower.grid
import fl_ppseg.flower.tasks
from fl_ppseg.flower import polling, supernode
from fl_ppseg.flower.polling import LONGEST_WAIT_SECONDS, Polling, look_soon
from fl_ppseg.flower.supernode import Pauses


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only sleeping moves; `slept` holds every pause."""
    now = SimpleNamespace(seconds=100.0, slept=[])

    def sleep(seconds: float) -> None:
        now.slept.append(seconds)
        now.seconds += seconds

    monkeypatch.setattr(polling.time, "monotonic", lambda: now.seconds)
    monkeypatch.setattr(supernode.time, "sleep", sleep)
    return now


def test_a_pause_is_a_share_of_the_quiet_time(clock: SimpleNamespace) -> None:
    polled = Polling(0.2, 3.0, share=0.1)
    assert polled.pause == 0.2
    clock.seconds += 10.0
    assert polled.pause == pytest.approx(1.0)
    clock.seconds += 1000.0
    assert polled.pause == 3.0
    polled.came()
    assert polled.pause == 0.2


def test_asking_adds_at_most_its_share_to_a_wait(clock: SimpleNamespace) -> None:
    for wait in (1.0, 7.0, 20.0):
        polled, begin = Polling(0.05, 3.0), clock.seconds
        polled.came()
        questions = 0
        while clock.seconds < begin + wait:
            clock.seconds += polled.pause
            questions += 1
        assert clock.seconds - begin <= 1.1 * wait + 0.05
        assert questions < 70


def test_a_supernode_asks_again_soon_after_a_message(clock: SimpleNamespace) -> None:
    pauses = Pauses()
    for _ in range(100):
        pauses.sleep(3)  # nothing comes
    assert clock.slept[0] == 0.2
    assert clock.slept[-1] == 3.0
    pauses.sleep(0.5)  # a message is being answered
    assert clock.slept[-1] == 0.05
    for _ in range(100):
        pauses.sleep(0.5)
    assert clock.slept[-1] == 0.5
    pauses.sleep(3)
    assert clock.slept[-1] == 0.2


def test_the_pauses_are_those_of_flowers_supernode() -> None:
    """3 s for a message and 0.5 s for its reply, by a module `time` that only sleeps."""
    source = inspect.getsource(start_client_internal)
    used = set(re.findall(r"\btime\.(\w+)\(", source))
    assert used == {"sleep"}
    assert source.count("time.sleep(3)") == 1
    assert source.count("time.sleep(0.5)") == 2
    assert Pauses().time() == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize(
    ("module", "name"),
    [(http_grid, "pull_objects"), (run_clientapp, "pull_and_inflate_object_from_tree")],
)
def test_parts_that_are_not_there_yet_are_looked_for_soon(module: object, name: str) -> None:
    found = getattr(module, name).keywords
    assert found["backoff_cap"] == LONGEST_WAIT_SECONDS
    assert found["max_tries_per_object"] is None
    assert f"{name}(" in inspect.getsource(module)  # type: ignore[arg-type]


def test_a_part_that_comes_late_is_pulled_soon_after() -> None:
    module = SimpleNamespace(pull_objects=pull_objects)
    look_soon(module, "pull_objects")  # type: ignore[arg-type]
    look_soon(module, "pull_objects")  # type: ignore[arg-type]  # twice is once
    asked = []

    def pull(name: str) -> bytes:
        asked.append(time.monotonic())
        if len(asked) < 3:
            raise ObjectUnavailableError(name)
        return b"part"

    assert module.pull_objects(["a"], pull) == {"a": b"part"}
    assert 0.1 < asked[-1] - asked[0] < 0.8  # Flower's own waits: 1 s, then 2


def test_a_renamed_function_is_not_passed_over() -> None:
    with pytest.raises(AttributeError):
        look_soon(fl_ppseg.flower.grid, "pull_no_objects")
