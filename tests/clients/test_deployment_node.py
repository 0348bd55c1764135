"""A node's identity, what its app answers and refuses, and the lines that its person reads."""

import hashlib
import inspect
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.task_identity import TaskIdentity

from clients.client_app import FAILED, REFUSED
from clients.node import app, supernode
from clients.node.command import main
from clients.node.home import AppHome, Home
from clients.node.supernode import Start, address_of
from clients.policy.node_policy import NodePolicy, save_policy
from clients.policy.pledges import PLEDGES, read_salt
from clients.private_state import DIGEST_LENGTH, TRAINED
from fl_ppseg import __version__
from fl_ppseg.config.sections import Config
from fl_ppseg.deployment.identity import fingerprint, read_public_key
from fl_ppseg.federation.message_content import Request
from fl_ppseg.federation.messages import pack_request
from fl_ppseg.flower import tasks
from fl_ppseg.flower.log_lines import MESSAGE_LOST
from fl_ppseg.flower.tasks import Bundle, Task
from fl_ppseg.system.command_line import run as run_command
from fl_ppseg.system.errors import InputError

BUNDLE = b"what the coordinator ships"
PIN = hashlib.sha256(BUNDLE).hexdigest()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    assert main(["init", "--home", str(tmp_path / "node"), "--client", "aachen"]) == 0
    return Home(tmp_path / "node")


def start(**changes: Any) -> Start:
    values: dict[str, Any] = {
        "coordinator": "127.0.0.1:1",
        "authority": None,
        "policy": Path("/node/policy.yaml"),
        "bundle_hash": None,
        "port": 9094,
    }
    return Start(**values | changes)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_makes_a_key_that_flower_reads(home: Home) -> None:
    key = load_ssh_private_key(home.key.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert try_load_public_key(home.public) == read_public_key(home.public)
    assert home.public.read_text().split()[2] == "aachen"


def test_secrets_are_their_owners_alone(home: Home) -> None:
    app = AppHome(home.settings.app_home)
    assert app.folder == home.folder / "app"
    assert (home.secret.read_bytes(), len(home.secret.read_bytes())) == (
        app.secret.read_bytes(),
        32,
    )
    for path in (home.folder, home.logs, home.node, home.flower, app.folder, app.flower, app.state):
        assert mode(path) == 0o700, path
    for path in (
        home.key,
        home.secret,
        app.secret,
        app.state / "ledger.jsonl",
        app.state / PLEDGES,
    ):
        assert mode(path) == 0o600, path
    assert (app.state / "ledger.jsonl").read_bytes() == b""
    assert len(read_salt(app.state)) == 32


def test_a_folder_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "app").mkdir()
    (tmp_path / "node" / "app" / "thesis.tex").write_text("x")
    assert run_command(main, ["init", "--home", str(tmp_path / "node"), "--client", "aachen"]) == 2
    assert "expected a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["node", "app", "thesis.tex"]


def test_a_node_keeps_its_key(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    before = home.key.read_bytes()
    assert run_command(main, ["init", "--home", str(home.folder), "--client", "aachen"]) == 2
    assert "a node keeps its key" in capsys.readouterr().err
    assert home.key.read_bytes() == before


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen to compare with")
def test_fingerprint_is_that_of_ssh_keygen(home: Home) -> None:
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", home.public], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split()[:2] == ["384", fingerprint(home.public)]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["init", "--client", "a/b"], "'a/b' is not the name of a client"),
        (["init", "--client", "a", "--app-user", "b"], "expected both node_user and app_user"),
        (
            ["init", "--client", "a", "--node-user", "b", "--app-user", "b"],
            "must have another user",
        ),
        (
            ["init", "--client", "a", "--node-user", "a b", "--app-user", "b"],
            "expected the name of a user",
        ),
        (
            ["init", "--client", "a", "--node-user", "nobody-0", "--app-user", "b"],
            "user 'nobody-0' does not exist",
        ),
        (["start"], "is not a folder of a node"),
        (["start", "--coordinator", "nowhere"], "expected HOST:PORT"),
        (["start", "--ca", "absent.crt"], "--ca absent.crt: no such file"),
        (["start", "--policy", "absent.yaml"], "--policy absent.yaml: no such file"),
        (["start", "--bundle-hash", "abc"], "expected 64 hex digits"),
        (["start", "--port", "0"], "--port: expected 1 to 65535, got 0"),
        (["start", "--max-memory", "nan"], "--max-memory: expected more than 0"),
        (["start", "--max-seconds", "-1"], "--max-seconds: expected more than 0"),
        (["start", "--max-cpus", "0"], "--max-cpus: expected 1 or more, got 0"),
        (["dance"], "argument VERB: invalid choice: 'dance'"),
    ],
)
def test_wrong_options_are_one_line(
    argv: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("")
    given = [*argv, "--home", str(tmp_path / "new")]
    if argv[0] == "start":
        for option, value in (("--coordinator", "127.0.0.1:1"), ("--policy", str(policy))):
            given += [] if option in argv else [option, value]
    assert run_command(main, given) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["host", ":9443", "host:", "host:0", "host:65536", "host:x"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected HOST:PORT"):
        address_of(text)


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("[code: 2004] Failed to activate SuperNode", "its key (K) is not enrolled, or it was"),
        ("HTTP/1.1 401 Unauthorized", "clock is wrong"),
        ("SSLError: CERTIFICATE_VERIFY_FAILED", "no longer trusted"),
    ],
)
def test_what_flower_logs_is_said_in_a_line(log: str, line: str) -> None:
    said = supernode._explain(f"...\n{log}\n...", "K")
    assert said is not None
    assert line in said


@pytest.mark.parametrize("words", [*MESSAGE_LOST, "a task ended with status"])
def test_a_node_that_has_dropped_a_message_joins_again(words: str) -> None:
    assert re.search(supernode.ASTRAY[0], f"ERROR :      {words} 7: gone")


def test_the_app_says_so_when_a_task_dies() -> None:
    assert "a task ended with status" in inspect.getsource(app)


def test_other_ends_are_left_to_the_supervisor() -> None:
    assert supernode._explain("Segmentation fault", "K") is None


# What the app answers.


@pytest.fixture
def message(monkeypatch: pytest.MonkeyPatch) -> Message:
    for name in ("run_id", "node_id", "task_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 7, raising=False)
        setattr(TaskIdentity, name, 7)
    config = Config()
    request = Request(
        "describe", "r", 1, 1, "plain", 0, "uploaded", 19, config.model, config.training
    )
    return Message(pack_request(request), 7, MessageType.QUERY)


def context(policy: Path) -> Context:
    config = {"policy": str(policy), "state": str(policy.parent / "app" / "state")}
    return Context(7, 7, config, RecordDict(), {})


def bundle_of(
    content: bytes = BUNDLE, version: str = __version__, name: str = "fl-ppseg/fl-ppseg"
) -> Bundle:
    return Bundle(name, version, content)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("{client: aachen, role: train, arms: {}}\n")
    path.chmod(0o600)
    assert main(["init", "--home", str(tmp_path / "node"), "--client", "aachen"]) == 0
    (tmp_path / "node" / "app").rename(tmp_path / "app")  # with a ledger, as init makes it
    return path


def test_the_machines_own_app_answers(message: Message, policy: Path) -> None:
    for pin in (None, PIN):
        reply = app.respond(Task(message, context(policy), bundle_of()), pin)
        assert not reply.has_error()
        assert reply.content.config_records["settings"]["client"] == "aachen"


def test_another_bundle_than_the_pinned_one_is_refused(message: Message, policy: Path) -> None:
    reply = app.respond(Task(message, context(policy), bundle_of(BUNDLE + b".")), PIN)
    assert reply.error.code == REFUSED
    assert reply.error.reason.startswith("refused: this node has pinned another bundle")


@pytest.mark.parametrize("bundle", [bundle_of(version="0.0.0"), bundle_of(name="mallory/fl-ppseg")])
def test_another_version_or_app_is_refused_without_a_pin(
    bundle: Bundle, message: Message, policy: Path
) -> None:
    reply = app.respond(Task(message, context(policy), bundle), None)
    assert reply.error.code == REFUSED
    assert f"this node runs fl-ppseg/fl-ppseg {__version__}" in reply.error.reason


@pytest.mark.parametrize("pin", [PIN, None])
def test_a_bundle_that_the_supernode_dropped_is_refused(
    pin: str | None, message: Message, policy: Path
) -> None:
    reply = app.respond(Task(message, context(policy), bundle_of(b"")), pin)
    assert reply.error.code == REFUSED
    assert "not read" in reply.error.reason


@pytest.mark.parametrize("withdrawn", [None, "aachen has withdrawn"])
def test_an_app_of_a_client_that_has_withdrawn_begins_by_removing_what_it_trained(
    withdrawn: str | None, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator may never ask again, and nobody else enters the app's folder."""
    trained = home.folder / "app" / "state" / TRAINED / ("a" * DIGEST_LENGTH)
    trained.mkdir(parents=True)
    policy = tmp_path / "policy.yaml"
    save_policy(NodePolicy(client="aachen", role="train", withdrawn=withdrawn, arms={}), policy)
    monkeypatch.setattr(app, "answer_tasks", lambda node: None)
    main(["app", "--home", str(home.folder / "app"), "--policy", str(policy)])
    assert trained.exists() == (withdrawn is None)


def test_errors_that_travel_name_no_path_and_no_value(message: Message, tmp_path: Path) -> None:
    missing = tmp_path / "secret-patient-17" / "policy.yaml"
    reply = app.respond(Task(message, context(missing), bundle_of()), None)
    assert reply.error.reason == "the node failed with InputError; see its own log"

    def bad(*_: object) -> Message:
        raise ValueError("patient 17")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "app", bad)
        reply = app.respond(Task(message, context(missing), bundle_of()), None)
    assert (reply.error.code, "17" in reply.error.reason) == (FAILED, False)


def test_the_bundle_is_neither_unpacked_nor_imported(
    message: Message, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower's own way to the code in a bundle leads over these two functions and its home."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    for module in (app, tasks):
        source = Path(module.__file__).read_text("utf-8")
        assert "install_from_fab" not in source
        assert "load_client_app" not in source
    app.respond(Task(message, context(policy), bundle_of()), PIN)
    assert not (tmp_path / "flwr").exists()
