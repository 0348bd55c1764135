"""Root, SuperNode and app are three users: what a lesser one writes leads no greater one astray."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.node import supernode
from clients.node.command import main
from clients.node.home import AppHome, Home, Settings
from clients.node.owners import check_owner
from clients.node.supernode import Start, serve
from fl_ppseg.deployment import logs
from fl_ppseg.deployment.accounts import account, as_user
from fl_ppseg.deployment.services import Service, Supervisor
from fl_ppseg.system.command_line import run
from fl_ppseg.system.errors import InputError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="two users of a machine want root")

NODE_USER, APP_USER = "daemon", "nobody"
"""Users that every Linux has, in the place of fl-node and fl-app."""
FLOOD = 3000
"""Lines, more than a log of the tests takes."""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="fl_ppseg-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def vault(place: Path) -> Path:
    made = place / "vault"
    made.mkdir(0o700)
    (made / "master.key").write_text("the key")
    (made / "master.key").chmod(0o600)
    return made


@pytest.fixture
def home(place: Path) -> Home:
    users = ["--node-user", NODE_USER, "--app-user", APP_USER]
    assert main(["init", "--home", str(place / "node"), "--client", "aachen", *users]) == 0
    return Home(place / "node")


@pytest.fixture
def policy(place: Path) -> Path:
    folder = place / "data"
    folder.mkdir(0o755)
    (folder / "policy.yaml").write_text("{client: aachen, role: train, arms: {}}\n")
    (folder / "policy.yaml").chmod(0o644)
    return folder / "policy.yaml"


def owners(place: Path) -> dict[str, tuple[int, int, int]]:
    """User, group and permissions of all that is there, links themselves."""
    found = {str(path): path.lstat() for path in (place, *place.rglob("*"))}
    return {name: (each.st_uid, each.st_gid, each.st_mode) for name, each in found.items()}


def link(path: Path, target: Path, user: str) -> None:
    """A link that a user made in a folder of its own."""
    path.symlink_to(target)
    os.chown(path, account(user).uid, account(user).gid, follow_symlinks=False)


def start(policy: Path, **changes: Any) -> Start:
    values: dict[str, Any] = {"authority": None, "bundle_hash": None, "port": 9094}
    return Start(**values | {"coordinator": "127.0.0.1:1", "policy": policy} | changes)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Service]:
    """What `start` starts, without starting it; root stays root, who tests on."""
    found: list[Service] = []

    class Recorder:
        def __init__(self, say: object) -> None: ...

        def __enter__(self) -> "Recorder":
            return self

        def __exit__(self, *_: object) -> None: ...

        def start(self, service: Service) -> None:
            found.append(service)

        def watch(self) -> None: ...

    monkeypatch.setattr(supernode, "Supervisor", Recorder)
    monkeypatch.setattr(supernode, "wait_for_coordinator", lambda *_: None)
    monkeypatch.setattr(supernode, "drop_root_capabilities", lambda: None)
    return found


def test_init_gives_each_user_its_folders_once(home: Home) -> None:
    app = AppHome(home.settings.app_home)
    node, other = account(NODE_USER).uid, account(APP_USER).uid
    expected = {
        home.folder: (0, 0o755),
        home.settings_file: (0, 0o644),
        home.public: (0, 0o644),
        home.folder / "logs": (0, 0o700),
        home.node: (node, 0o700),
        home.key: (node, 0o600),
        home.secret: (node, 0o600),
        home.flower: (node, 0o700),
        app.folder: (other, 0o700),
        app.folder / "apart": (0, 0o600),
        app.secret: (other, 0o600),
        app.flower: (other, 0o700),
        app.state: (other, 0o700),
        app.state / "ledger.jsonl": (other, 0o600),
        app.state / "pledges.jsonl": (other, 0o600),
    }
    found = {path: (s.st_uid, s.st_mode & 0o7777) for path in expected for s in [path.lstat()]}
    assert found == expected
    assert set(home.folder.rglob("*")) == expected.keys() - {home.folder}


def test_start_gives_nobody_the_vault(
    home: Home, policy: Path, vault: Path, started: list[Service]
) -> None:
    """A2: the app's user has links to keys in its own folder when root starts the node again."""
    app = AppHome(home.settings.app_home)
    for name, target in {
        "a": vault,
        "b": vault / "master.key",
        "c": home.node,
        "d": home.key,
        "flwr/e": vault / "master.key",
        "state/node.log": vault / "master.key",
        "state/private": vault,
    }.items():
        link(app.folder / name, target, APP_USER)
    before = owners(policy.parents[1])
    serve(home, start(policy), print)
    assert [service.account for service in started] == [account(NODE_USER), account(APP_USER)]
    assert owners(policy.parents[1]) == before


def test_what_root_writes_lies_where_no_lesser_user_can_put_a_link(
    home: Home, policy: Path, started: list[Service]
) -> None:
    """A3: logs of both programs, and the folders on the way to them, are root's alone."""
    serve(home, start(policy), print)
    for service in started:
        for folder in (service.log.parent, home.folder, service.folder):
            found = folder.lstat()
            assert (found.st_uid, found.st_mode & 0o022) == (0, 0), folder
        assert not any(
            service.log.is_relative_to(each) for each in (home.node, home.folder / "app")
        )


def test_a_program_that_plants_links_has_root_write_into_nothing(
    place: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A3, tried: it may try as long as it runs, and floods its log so that it is turned over."""
    monkeypatch.setattr(logs, "LOG_BYTES", 10_000)
    target = place / "cron"
    target.write_text("")
    log = home.logs / "supernode.log"
    script = (
        f"for each in {log} {log}.1 {home.folder}/logs2; do ln -sfn {target} $each; done;"
        f"mv {home.logs} {home.folder}/gone; rm -f {log};"
        f"seq {FLOOD}; exec sleep 60"
    )
    made = Service("it", ["sh", "-c", script], log, {"PATH": "/usr/bin:/bin"}, home.folder)
    made = Service(**vars(made) | {"account": account(NODE_USER)})
    with Supervisor(print) as supervisor:
        supervisor.start(made)
        while not log.with_name("supernode.log.1").exists() or f"{FLOOD}" not in log.read_text():
            supervisor.poll()
    assert log.with_name("supernode.log.1").read_text().count("Permission denied") >= 5
    assert target.read_text() == ""
    assert sorted(path.name for path in home.logs.iterdir()) == [log.name, f"{log.name}.1"]
    assert not any(path.is_symlink() for path in home.logs.iterdir())


def test_the_node_calls_the_coordinator_as_its_own_user(
    home: Home, policy: Path, started: list[Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reach(*_: object) -> None:
        raise InputError(f"{os.getuid()} {os.geteuid()} {os.getgroups()}")

    monkeypatch.setattr(supernode, "wait_for_coordinator", reach)
    uid = account(NODE_USER).uid
    with pytest.raises(InputError, match=f"^{uid} {uid} .0*{account(NODE_USER).gid}.$"):
        serve(home, start(policy), print)
    assert started == []


def test_what_goes_wrong_as_another_user_is_said() -> None:
    def fail() -> None:
        raise ValueError("of no use")

    with pytest.raises(InputError, match="ValueError: of no use"):
        as_user(account(NODE_USER), fail)
    with pytest.raises(OSError, match="daemon ended with status -9"):
        as_user(account(NODE_USER), lambda: os.kill(os.getpid(), 9))


SHOW = """
import os, sys
from fl_ppseg.deployment.accounts import account, as_user, drop_root_capabilities
drop_root_capabilities()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")))
try:
    open(sys.argv[1]).read()
except PermissionError:
    print("denied")
as_user(account("nobody"), lambda: print(os.getuid(), flush=True))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_root_that_supervises_keeps_nothing_but_starting_and_ending(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_text("x")
    foreign.chmod(0o600)
    os.chown(foreign, 1, 1)
    shown = subprocess.run(
        [sys.executable, "-c", SHOW, foreign], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == [f"{0b111 << 5:016x}", "denied", str(account("nobody").uid)]


def give(path: Path, user: str) -> None:
    os.chown(path, account(user).uid, account(user).gid)


def replaced(path: Path, target: Path) -> None:
    shutil.rmtree(path)
    link(path, target, APP_USER)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda h: give(h.node, APP_USER), "node: expected a folder of daemon with mode 0700"),
        (
            lambda h: give(h.folder / "app", NODE_USER),
            "app: expected a folder of nobody with mode 0700",
        ),
        (
            lambda h: give(h.folder / "app", "root"),
            "app: expected a folder of nobody with mode 0700",
        ),
        (lambda h: (h.folder / "app").chmod(0o777), "mode 0777; it was changed after init"),
        (lambda h: replaced(h.folder / "app", h.node), "got a link of nobody"),
        (lambda h: shutil.rmtree(h.node), "node: missing"),
        (lambda h: give(h.folder, NODE_USER), "belongs to daemon"),
        (lambda h: h.folder.chmod(0o777), "anybody may write there"),
        (lambda h: give(h.settings_file, NODE_USER), "belongs to daemon"),
        (lambda h: h.settings_file.chmod(0o666), "others may write it"),
        (lambda h: give(h.folder.parent, APP_USER), "belongs to nobody"),
    ],
)
def test_folders_that_changed_hands_are_refused_in_a_line(
    change: Callable[[Home], object],
    line: str,
    home: Home,
    policy: Path,
    started: list[Service],
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(home)
    argv = ["start", "--home", home.folder, "--coordinator", "127.0.0.1:1", "--policy", policy]
    capsys.readouterr()
    assert run(main, list(map(str, argv))) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("error: ") == 1
    assert started == []


@pytest.mark.parametrize("user", [NODE_USER, APP_USER])
@pytest.mark.parametrize("which", [0, 1])
def test_a_policy_of_those_whom_it_binds_is_refused(
    user: str, which: int, home: Home, policy: Path, started: list[Service]
) -> None:
    give([policy, policy.parent][which], user)
    with pytest.raises(InputError, match="who is bound by the policy"):
        serve(home, start(policy), print)
    assert started == []


def test_a_policy_behind_a_link_of_those_whom_it_binds_is_refused(policy: Path) -> None:
    other = policy.with_name("other.yaml")
    link(other, policy, APP_USER)
    with pytest.raises(InputError, match="who is bound by the policy"):
        check_owner(other, {account(APP_USER).uid})


@pytest.mark.parametrize("which", [0, 1])
def test_a_policy_that_others_may_write_is_refused(which: int, policy: Path) -> None:
    [policy, policy.parent][which].chmod(0o777)
    with pytest.raises(InputError, match="others may write there"):
        check_owner(policy, {account(APP_USER).uid})


def test_the_owner_may_be_anybody_else(policy: Path) -> None:
    for path in (policy, policy.parent):
        give(path, "bin")
    check_owner(policy, {account(NODE_USER).uid, account(APP_USER).uid})


def test_without_root_the_line_says_how_it_starts_without_root(home: Home, policy: Path) -> None:
    def try_it(**changes: Any) -> None:
        as_user(account(NODE_USER), lambda: serve(home, start(policy, **changes), print))

    with pytest.raises(InputError, match="only root can start programs as daemon and nobody"):
        try_it()


def test_without_root_the_node_user_starts_the_supernode_alone(
    home: Home, policy: Path, started: list[Service]
) -> None:
    def try_it() -> None:
        serve(home, start(policy, with_app=False), print)
        (service,) = started
        raise InputError(f"{service.account} {service.log}")

    with pytest.raises(InputError, match=f"^None {home.node}/logs/supernode.log$"):
        as_user(account(NODE_USER), try_it)


def test_root_is_no_user_for_a_program() -> None:
    settings = Settings(client="a", app_home=Path("/app"), node_user="root", app_user="nobody")
    with pytest.raises(InputError, match="expected two different users other than root"):
        _ = settings.users


def test_a_home_below_somebody_elses_folder_is_refused(place: Path) -> None:
    give(place, APP_USER)
    with pytest.raises(InputError, match="belongs to nobody"):
        main(["init", "--home", str(place / "node"), "--client", "aachen"])
