"""Who is let in and through what, and how a run is told to have ended."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.superlink.routers.fleet.router import router

from fl_ppseg.command_line import run as run_command
from fl_ppseg.deployment.certificates import Pair, issue, make_authority
from fl_ppseg.deployment.cities import Cities, load_cities, save_cities
from fl_ppseg.deployment.identity import make_key_pair, read_public_key
from fl_ppseg.errors import InputError, RunError
from fl_ppseg.progress import RecordedObserver
from fl_ppseg.run_folder import RunFolder
from strategies.coordinator import submission
from strategies.coordinator.command import main
from strategies.coordinator.enrolment import bring_in_line, enrol
from strategies.coordinator.home import Home
from strategies.coordinator.proxy import NODE_PATHS, write_proxy
from strategies.coordinator.submission import carry_out
from strategies.coordinator.superlink import NoAnswerError, Node, RunState, read_bundle

CHECKOUT = Path(__file__).resolve().parents[1]
INIT = ["init", "--host", "coordinator.example", "--ip", "10.1.0.1"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    assert main([*INIT, "--home", str(tmp_path / "home with blanks")]) == 0
    return Home(tmp_path / "home with blanks")


def public_key(folder: Path, name: str) -> Path:
    make_key_pair(folder / f"{name}.key", folder / f"{name}.pub", name)
    return folder / f"{name}.pub"


# The folder and its certificates.


def test_init_leaves_a_folder_that_nodes_will_trust(home: Home) -> None:
    home.check()
    assert home.settings.hosts == ("coordinator.example", "10.1.0.1")
    assert home.folder.stat().st_mode & 0o077 == 0
    assert not home.link_authority.key.exists()


def test_init_touches_no_other_coordinator(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    before = home.server.certificate.read_bytes()
    assert run_command(main, [*INIT, "--home", str(home.folder)]) == 2
    assert "add --renew" in capsys.readouterr().err
    assert home.server.certificate.read_bytes() == before


def test_renewed_certificates_are_of_the_same_authority(home: Home) -> None:
    authority, server = (p.read_bytes() for p in (home.authority[0], home.server[0]))
    assert main(["init", "--home", str(home.folder), "--renew"]) == 0
    assert home.authority.certificate.read_bytes() == authority
    assert home.server.certificate.read_bytes() != server
    home.check()


def given(folder: Path, host: str, days: int = 5) -> list[str]:
    authority, pair = (Pair(folder / f"{n}.crt", folder / f"{n}.key") for n in ("own-ca", "own"))
    make_authority(authority, days=9)
    issue(authority, pair, [host], days)
    files = {"--certificate": pair.certificate, "--key": pair.key, "--ca": authority.certificate}
    return [text for option, file in files.items() for text in (option, str(file))]


def test_existing_certificates_are_used(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    options = [*given(tmp_path, "mine.example"), "--home", str(home.folder)]
    assert main(["init", "--host", "mine.example", *options]) == 0
    home.check()
    assert home.server.certificate.read_bytes() == (tmp_path / "own.crt").read_bytes()
    assert not home.authority.key.exists()


@pytest.mark.parametrize(
    ("host", "days", "line"),
    [("other.example", 5, "mismatch"), ("mine.example", 0, "certificate has expired")],
)
def test_certificates_that_nodes_would_refuse_are_refused(
    host: str, days: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*given(tmp_path, "mine.example", days), "--home", str(tmp_path / "home")]
    assert run_command(main, ["init", "--host", host, *options]) == 2
    error = capsys.readouterr().err
    assert line in error.lower()
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["init"], "--host or --ip"),
        (["init", "--host", "a.example", "--port", "0"], "init: port: "),
        (["init", "--host", "a.example", "--key", "k"], "belong together"),
        (["start"], "no coordinator lives here"),
        (["status"], "no coordinator lives here"),
        (["run", "--run", "nowhere"], "no cities of a run"),
    ],
)
def test_wrong_options_are_one_line(
    argv: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, [*argv, "--home", str(tmp_path / "home")]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


# The proxy.


def test_the_proxy_lets_through_what_nodes_need_and_no_more() -> None:
    of_flower = {route.path for route in router.routes}  # type: ignore[attr-defined]
    apart = {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert set(NODE_PATHS) == of_flower - apart


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")
def test_haproxy_takes_the_configuration(home: Home) -> None:
    write_proxy(home)
    done = subprocess.run(
        ["haproxy", "-c", "-V", "-f", home.proxy_config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert home.proxy_pem.stat().st_mode & 0o077 == 0


def test_without_haproxy_nothing_starts(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("strategies.coordinator.proxy.shutil.which", lambda *_, **__: None)
    assert run_command(main, ["start", "--home", str(home.folder)]) == 2
    assert "haproxy is not installed" in capsys.readouterr().err


# Enrolment.


class Registry:
    """A SuperLink that registers nodes as Flower's does."""

    def __init__(self) -> None:
        self.known: list[Node] = []
        self.calls: list[str] = []

    def nodes(self) -> list[Node]:
        return self.known

    def register(self, city: str, key: bytes) -> None:
        assert key not in {node.public_key for node in self.known}  # Flower refuses it
        self.calls.append(f"+{city}")
        self.known.append(Node(len(self.calls), city, False, key))

    def unregister(self, node_id: int) -> None:
        (gone,) = (node for node in self.known if node.node_id == node_id)
        self.calls.append(f"-{gone.city}")
        self.known.remove(gone)


def in_line(home: Home, registry: Registry) -> list[str]:
    registry.calls.clear()
    bring_in_line(home, registry)  # type: ignore[arg-type]
    assert {(n.city, n.public_key) for n in registry.known} == {
        (city, read_public_key(path)) for city, path in home.enrolled().items()
    }
    return registry.calls


def test_enrolling_is_idempotent_and_a_second_key_is_refused(home: Home, tmp_path: Path) -> None:
    registry = Registry()
    first, second = (public_key(tmp_path, name) for name in ("first", "second"))
    enrol(home, "aachen", first, replace=False)
    assert in_line(home, registry) == ["+aachen"]
    enrol(home, "aachen", first, replace=False)
    assert in_line(home, registry) == []
    with pytest.raises(InputError, match="aachen is enrolled with another key") as caught:
        enrol(home, "aachen", second, replace=False)
    assert "--replace" in str(caught.value)
    with pytest.raises(InputError, match="enrolled for aachen; one key is one city's"):
        enrol(home, "bochum", first, replace=True)
    enrol(home, "aachen", second, replace=True)
    assert in_line(home, registry) == ["-aachen", "+aachen"]


@pytest.mark.parametrize("city", ["", ".hidden", "a/b", "x" * 64])
def test_names_that_are_no_file_names_are_refused(city: str, home: Home, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no name of a city"):
        enrol(home, city, public_key(tmp_path, "k"), replace=False)


def test_other_files_are_no_keys(home: Home, tmp_path: Path) -> None:
    make_key_pair(tmp_path / "k", tmp_path / "k.pub", "")
    with pytest.raises(InputError, match="no node's public key"):
        enrol(home, "aachen", tmp_path / "k", replace=False)


# Submitting and following.

CITIES = Cities(train=("aachen",), val=("lindau",))
RUNNING, DONE = ("running", "", ""), ("finished", "completed", "")
LOST = ("finished", "failed", "Task failed with unknown error.")
FAILED = ("finished", "failed", "ServerApp failed with exception: round 2:\n 0 of 2 cities")


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
    save_cities(CITIES, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ("LOOK_SECONDS", "ASK_SECONDS"):
        monkeypatch.setattr(submission, name, 0.0)
    monkeypatch.setattr(submission, "read_bundle", lambda _: b"bundle")
    yield monkeypatch


def followed(
    link: FakeLink, home: Home, run: RunFolder, patch: pytest.MonkeyPatch, tmp_path: Path
) -> list[str]:
    for city in CITIES.all:
        if city not in home.enrolled():
            enrol(home, city, public_key(tmp_path, city), replace=False)
    patch.setattr(submission, "SuperLink", lambda _: link)
    said: list[str] = []
    carry_out(home, run, CHECKOUT, quiet=False, say=said.append)
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
            RecordedObserver(run.path / "progress.jsonl").message(f"look {len(self.stories[0])}")
            return super().run(run_id)

    RecordedObserver(run.path / "progress.jsonl").message("of an earlier start")
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
        "round 2: 0 of 2 cities; the same command goes on after its last finished round"
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
    with pytest.raises(InputError, match="a run of /other is under way") as caught:
        followed(link, home, run, quick, tmp_path)
    assert str(caught.value).endswith(f"strategies.coordinator stop --home {home.folder}")


def test_who_is_not_enrolled_is_named_before_anything_starts(
    home: Home, run: RunFolder, quick: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quick.setattr(submission, "SuperLink", lambda _: FakeLink([DONE]))
    enrol(home, "aachen", public_key(tmp_path, "aachen"), replace=False)
    with pytest.raises(InputError, match="not enrolled: lindau; get each"):
        carry_out(home, run, CHECKOUT, quiet=True, say=print)


# Bundle, cities, templates.


def test_equal_checkouts_give_equal_bundles_and_others_do_not(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    copies = tmp_path / "here", tmp_path / "elsewhere" / "later"
    for copy in copies:
        for name in listed.stdout.splitlines():
            if name.endswith((".py", ".toml", ".yaml", "LICENSE", ".md", ".gitignore")):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(CHECKOUT / name, copy / name)
    first = read_bundle(copies[0])
    assert first == read_bundle(copies[1]) == read_bundle(CHECKOUT)
    with (copies[1] / "clients" / "client_app.py").open("a") as file:
        file.write("#\n")
    assert read_bundle(copies[1]) != first


def test_cities_are_read_as_they_were_written(tmp_path: Path) -> None:
    save_cities(CITIES, tmp_path)
    assert load_cities(tmp_path) == CITIES
    assert CITIES.all == ("aachen", "lindau")


@pytest.mark.parametrize("kind", ["systemd", "compose"])
def test_templates_are_filled_in(kind: str, home: Home, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ["template", "--home", str(home.folder), "--runs", "/srv/runs", "--out", str(out), kind]
    assert main(argv) == 0
    assert main(argv) == 0  # the same again is no conflict
    files = sorted(out.iterdir())
    for file in files:
        text = file.read_text()
        assert "$" not in text
        assert file.name == "Dockerfile" or str(home.folder) in text
        if file.suffix == ".yaml":
            (service,) = yaml.safe_load(text)["services"].values()
            assert service["ports"] == ["9443:9443"]
    (out / files[0].name).write_text("mine")
    with pytest.raises(InputError, match="another file is there already"):
        main(argv)
