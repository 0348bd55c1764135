"""How a run is submitted, followed, and told to have ended."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import CHECKOUT
from small_coordinator import Registry, coordinator, public_key

from fl_ppseg.deployment.clients import Clients, save_clients
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.flower.log_lines import SERVER_APP_FAILED
from fl_ppseg.flower.superlink import NoAnswerError, RunState
from fl_ppseg.progress.events import Notice
from fl_ppseg.progress.recorded import RecordedObserver
from fl_ppseg.system.errors import InputError, RunError
from strategies.coordinator import submission
from strategies.coordinator.enrolment import enrol
from strategies.coordinator.home import Home
from strategies.coordinator.submission import follow_run

CLIENTS = Clients(train=("aachen",), val=("lindau",))
RUNNING, DONE = ("running", "", ""), ("finished", "completed", "")
LOST = ("finished", "failed", "Task failed with unknown error.")
FAILED = ("finished", "failed", "ServerApp failed with exception: round 2:\n 0 of 2 clients")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return coordinator(tmp_path)


class FakeLink(Registry):
    """A SuperLink whose runs go through the given states."""

    def __init__(self, *stories: list[Any]) -> None:
        super().__init__()
        self.stories = [list(story) for story in stories]
        self.submitted: list[Any] = []
        self.stopped: list[int] = []
        self.active: list[RunState] = []

    def __enter__(self) -> "FakeLink":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, bundle: bytes, digest: str, config: Any) -> int:
        self.submitted.append(config)
        return len(self.submitted)

    def runs(self) -> list[RunState]:
        return self.active

    def run(self, run_id: int) -> RunState:
        told = self.stories[0].pop(0)
        if not self.stories[0]:
            self.stories.pop(0)
        if isinstance(told, BaseException):
            raise told
        return RunState(run_id, *told, "")

    def stop(self, run_id: int) -> None:
        self.stopped.append(run_id)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    save_clients(CLIENTS, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ("POLL_SECONDS", "ASK_SECONDS"):
        monkeypatch.setattr(submission, name, 0.0)
    monkeypatch.setattr(submission, "read_bundle", lambda _: b"bundle")
    yield monkeypatch


def followed(
    link: FakeLink, home: Home, run: RunFolder, patch: pytest.MonkeyPatch, tmp_path: Path
) -> list[str]:
    for client in CLIENTS.all:
        if client not in home.enrolled():
            enrol(home, client, public_key(tmp_path, client), replace=False)
    patch.setattr(submission, "connect", lambda _: link)
    said: list[str] = []
    follow_run(home, run, CHECKOUT, quiet=False, plug_ins=[], say=said.append)
    return said


def test_a_run_is_followed_to_its_end(
    home: Home,
    run: RunFolder,
    quick: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Server(FakeLink):
        def run(self, run_id: int) -> RunState:
            RecordedObserver(run.path / "progress.jsonl").on_event(
                Notice(f"look {len(self.stories[0])}")
            )
            return super().run(run_id)

    RecordedObserver(run.path / "progress.jsonl").on_event(Notice("of an earlier start"))
    said = followed(Server([RUNNING, RUNNING, DONE]), home, run, quick, tmp_path)
    assert said == ["not connected yet: aachen, lindau"]
    assert capsys.readouterr().err == "! look 3\n! look 2\n! look 1\n"


def test_the_server_is_told_where_and_for_how_many_nodes(
    home: Home, run: RunFolder, quick: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = FakeLink([DONE])
    followed(link, home, run, quick, tmp_path)
    assert link.submitted == [{"run-dir": str(run.path), "num-nodes": 2}]


def test_a_failed_run_fails_with_the_servers_reason_in_one_line(
    home: Home, run: RunFolder, quick: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = FakeLink([RUNNING, FAILED], [DONE])
    with pytest.raises(RunError) as caught:
        followed(link, home, run, quick, tmp_path)
    assert str(caught.value) == (
        "round 2: 0 of 2 clients; repeat the command to resume after its last finished round"
    )
    assert len(link.submitted) == 1


def test_a_run_whose_server_was_lost_goes_on_and_not_for_ever(
    home: Home, run: RunFolder, quick: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    away = NoAnswerError("away")
    link = FakeLink([RUNNING, away, away, LOST], [LOST], [DONE])
    said = followed(link, home, run, quick, tmp_path)
    assert len([line for line in said if line.startswith("the server was lost")]) == 2
    assert len(link.submitted) == 3
    hopeless = FakeLink(*[[LOST]] * 9)
    with pytest.raises(RunError, match="Task failed with unknown error"):
        followed(hopeless, home, run, quick, tmp_path)
    assert len(hopeless.submitted) == 1 + submission.ATTEMPTS


def test_a_round_in_between_makes_good_for_what_was_lost_before(
    home: Home, run: RunFolder, quick: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Server(FakeLink):
        def run(self, run_id: int) -> RunState:
            about = {"arm": "plain", "seed": 0, "role": "round", "round": run_id, "confusion": None}
            run.append([about | {"bytes_up": 0, "bytes_down": 0, "seconds": 1.0}])
            return super().run(run_id)

    num = 2 * submission.ATTEMPTS
    link = Server(*[[LOST]] * num, [DONE])
    followed(link, home, run, quick, tmp_path)
    assert len(link.submitted) == num + 1


def test_a_superlink_that_fails_or_is_away_for_a_while_ends_no_run(
    home: Home, run: RunFolder, quick: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Server(FakeLink):
        def submit(self, bundle: bytes, digest: str, config: Any) -> int:
            if len(self.stories) == 1:
                self.away -= 1
                if self.away >= 0:
                    raise NoAnswerError("away")
            return super().submit(bundle, digest, config)

        away = 3

    locked = "Server error '500 Internal Server Error' for url 'https://127.0.0.1:9092/v1/runtime'"
    link = Server([("finished", "failed", SERVER_APP_FAILED + locked)], [DONE])
    said = followed(link, home, run, quick, tmp_path)
    assert said[-1] == f"the server was lost ({locked}); resuming"
    assert link.away == -1


def test_an_interrupt_stops_the_run(
    home: Home, run: RunFolder, quick: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = FakeLink([RUNNING, KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        followed(link, home, run, quick, tmp_path)
    assert link.stopped == [1]


def test_a_run_under_way_is_followed_and_another_one_is_in_the_way(
    home: Home, run: RunFolder, quick: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = FakeLink([DONE])
    link.active = [RunState(5, "running", "", "", str(run.path))]
    followed(link, home, run, quick, tmp_path)
    assert link.submitted == []
    link.active = [RunState(5, "running", "", "", "/other")]
    with pytest.raises(InputError, match="a run of /other is active") as caught:
        followed(link, home, run, quick, tmp_path)
    assert str(caught.value).endswith(f"strategies.coordinator stop --home {home.folder}")


def test_who_is_not_enrolled_is_named_before_anything_starts(
    home: Home, run: RunFolder, quick: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quick.setattr(submission, "connect", lambda _: FakeLink([DONE]))
    enrol(home, "aachen", public_key(tmp_path, "aachen"), replace=False)
    with pytest.raises(InputError, match="not enrolled: lindau; get each"):
        follow_run(home, run, CHECKOUT, quiet=True, plug_ins=[], say=print)
