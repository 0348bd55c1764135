"""What goes out: the bundle of the app, a run's clients, units and compose files."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from checkout import CHECKOUT
from small_coordinator import coordinator

from clients.node.command import main as node_main
from clients.node.home import APP
from clients.node.home import Home as NodeHome
from clients.node.home import Settings as NodeSettings
from fl_ppseg.deployment import templates
from fl_ppseg.deployment.clients import Clients, load_clients, save_clients
from fl_ppseg.deployment.settings import save_settings
from fl_ppseg.deployment.templates import quoted, write_templates
from fl_ppseg.flower.superlink import read_bundle
from fl_ppseg.system.errors import InputError
from strategies.coordinator.command import main
from strategies.coordinator.home import Home

CLIENTS = Clients(train=("aachen",), val=("lindau",))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return coordinator(tmp_path)


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
            if not (CHECKOUT / name).exists():  # removed, and not committed yet
                continue
            if name.endswith((".py", ".toml", ".yaml", "LICENSE", ".md", ".gitignore")):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(CHECKOUT / name, copy / name)
    first = read_bundle(copies[0])
    assert first == read_bundle(copies[1]) == read_bundle(CHECKOUT)
    with (copies[1] / "clients" / "client_app.py").open("a") as file:
        file.write("#\n")
    assert read_bundle(copies[1]) != first


def test_the_bundle_holds_all_of_ours_that_the_apps_import(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(read_bundle(CHECKOUT))) as bundle:
        bundle.extractall(tmp_path)
    tried = subprocess.run(
        [sys.executable, "-c", "import clients.client_app, strategies.server_app"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.stderr == ""


def test_clients_are_read_as_they_were_written(tmp_path: Path) -> None:
    save_clients(CLIENTS, tmp_path)
    assert load_clients(tmp_path) == CLIENTS
    assert CLIENTS.all == ("aachen", "lindau")


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
        assert file.stem == "Dockerfile" or str(home.folder) in text
        assert file.stem == "Dockerfile" or "16G" in text
        if file.suffix == ".yaml":
            (service,) = yaml.safe_load(text)["services"].values()
            assert service["ports"] == ["9443:9443"]
    (out / files[0].name).write_text("mine")
    with pytest.raises(InputError, match="another file exists already"):
        main(argv)


# What the systemd unit adds: the SuperLink's port is the coordinator's user's alone.

PROBE = """
import os, socket, sys
port = int(sys.argv[1])
"".encode("idna")  # imported as long as everything may be read
server = socket.create_server(("127.0.0.1", port))
for uid in map(int, sys.argv[2:]):
    if not os.fork():
        os.setuid(uid)
        try:
            socket.create_connection(("127.0.0.1", port), 2)
        except ConnectionRefusedError:
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
"""Who may connect: 0, who is refused: 1."""
ALONE = ["unshare", "-n"]
"""Runs a command in a network of its own, whose firewall ends with it."""


def commands(unit: Path, when: str) -> list[list[str]]:
    """What a unit runs at some time, as systemd splits it."""
    text = unit.read_text().replace("\\\n", "")
    return [shlex.split(found.lstrip("+-")) for found in re.findall(rf"^{when}=(.*)", text, re.M)]


def has_a_firewall_of_its_own() -> bool:
    """Whether this machine lets a test try rules that concern nobody else."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nft", "ip"))):
        return False
    tried = subprocess.run([*ALONE, "nft", "list", "ruleset"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(not has_a_firewall_of_its_own(), reason="needs root, unshare, nft and ip")
def test_other_users_of_the_machine_do_not_reach_the_superlink(home: Home, tmp_path: Path) -> None:
    argv = ["--home", str(home.folder), "--runs", "/srv/runs", "--user", "daemon"]
    assert main(["template", *argv, "--out", str(tmp_path), "systemd"]) == 0
    unit = tmp_path / "fl-ppseg-coordinator.service"
    (begin,), (end,) = commands(unit, "ExecStartPre"), commands(unit, "ExecStopPost")
    probe = [sys.executable, "-c", PROBE, str(home.settings.link_port), "0", "1", "2"]  # daemon: 1
    steps = [["ip", "link", "set", "lo", "up"], probe, begin, begin, probe, end, probe]
    script = " && ".join(map(shlex.join, steps))
    done = subprocess.run([*ALONE, "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == [*"000", *"001", *"000"]


# Paths of a person's choice come out as they went in.

ODD = "my $HOME 100 % 'a' \"b\" \\x41 ${y} %h #c: ü"
"""A folder's name with all that systemd, YAML, compose and shells read something into."""
POLICY = "/srv/data of aachen/policy.yaml"


@pytest.fixture
def odd_node(tmp_path: Path) -> NodeHome:
    """A node of two users in an odd folder, as root would have made it."""
    place = tmp_path / ODD
    place.mkdir()
    assert node_main(["init", "--home", str(place / "node"), "--client", "aachen"]) == 0
    home = NodeHome(place / "node")
    users = {"node_user": "fl-node", "app_user": "fl-app"}
    save_settings(
        NodeSettings(client="aachen", app_home=home.folder / APP, **users), home.settings_file
    )
    home.settings_file.chmod(0o644)
    return home


def write_node(home: NodeHome, out: Path, kind: str, *more: str) -> list[Path]:
    argv = ["--home", str(home.folder), "--coordinator", "coordinator.example:9443"]
    argv += ["--policy", POLICY, "--ca", "/srv/the ca.crt", "--bundle-hash", "a" * 64, *more]
    assert node_main(["template", *argv, "--out", str(out), kind]) == 0
    return sorted(out.iterdir())


def unescaped(line: str) -> list[str]:
    """The words of a line of a unit, as systemd.syntax and systemd.service say."""
    words = []
    for word in re.findall(r'[-+]*"(?:[^"\\]|\\.)*"|\S+', line):
        bare = re.sub(r'^([-+]*)"(.*)"$', r"\1\2", word)
        bare = re.sub(r"\\(.)", r"\1", bare)
        words.append(bare.replace("%%", "%").replace("$$", "$"))
    return words


def keys(unit: Path) -> dict[str, list[str]]:
    text = unit.read_text().replace("\\\n", "")
    found = re.findall(r"^(\w+)=(.*)$", text, re.M)
    return {name: unescaped(value) for name, value in found}


def test_units_of_a_node_keep_odd_paths_and_need_no_root(
    odd_node: NodeHome, tmp_path: Path
) -> None:
    app, supernode = write_node(odd_node, tmp_path / "out", "systemd", "--max-memory", "4")
    assert [app.name, supernode.name] == [
        "fl-ppseg-node-aachen-app.service",
        "fl-ppseg-node-aachen-supernode.service",
    ]
    assert "chown" not in app.read_text() + supernode.read_text()
    limits = ["--max-memory", "4", "--max-seconds", "3600"]
    pin, home = ["--bundle-hash", "a" * 64], str(odd_node.folder)
    found = keys(supernode)
    assert found["User"] == ["fl-node"]
    assert found["ExecStart"] == [
        *(sys.executable, "-P", "-m", "clients.node", "start", "--without-app"),
        *("--home", home, "--coordinator", "coordinator.example:9443", "--policy", POLICY),
        *("--port", "9094", "--ca", "/srv/the ca.crt", *pin, *limits),
    ]
    assert found["ReadWritePaths"] == [f"{home}/node"]
    assert found["InaccessiblePaths"] == [f"-{home}/app"]
    assert found["MemoryMax"] == ["6G"]
    found = keys(app)
    assert found["User"] == ["fl-app"]
    assert found["ExecStart"] == [
        *(sys.executable, "-P", "-m", "clients.node", "app", "--home", f"{home}/app"),
        *("--policy", POLICY, "--port", "9094", *pin, *limits),
    ]
    assert found["ReadWritePaths"] == [f"{home}/app"]
    assert found["ReadOnlyPaths"] == ["/srv/data of aachen"]
    assert found["InaccessiblePaths"] == [f"-{home}/node"]
    for each in (app, supernode):
        found = keys(each)
        assert (found["NoNewPrivileges"], found["CapabilityBoundingSet"]) == (["yes"], [])
        assert found["TasksMax"]


def test_a_unit_of_one_user_is_refused(tmp_path: Path) -> None:
    assert node_main(["init", "--home", str(tmp_path / "node"), "--client", "aachen"]) == 0
    with pytest.raises(InputError, match="units need two users"):
        write_node(NodeHome(tmp_path / "node"), tmp_path / "out", "systemd")


def test_compose_files_of_a_node_keep_odd_paths(odd_node: NodeHome, tmp_path: Path) -> None:
    *_, compose = write_node(odd_node, tmp_path / ODD / "out", "compose", "--max-cpus", "2")
    services = yaml.safe_load(compose.read_text())["services"]

    def plain(value: object) -> object:
        """What compose makes of a value: it puts variables in, and $$ is a $."""
        if isinstance(value, str):
            assert "$" not in value.replace("$$", "")
            return value.replace("$$", "$")
        if isinstance(value, list):
            return [plain(each) for each in value]
        return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value

    home, app = str(odd_node.folder), plain(services["app"])
    supernode = plain(services["supernode"])
    assert supernode["command"] == [  # type: ignore[index]
        *("python", "-m", "clients.node", "start", "--without-app", "--home", home),
        *("--coordinator", "coordinator.example:9443", "--policy", POLICY),
        *("--ca", "/srv/the ca.crt", "--bundle-hash", "a" * 64),
        *("--max-memory", "8", "--max-seconds", "3600", "--max-cpus", "2"),
    ]
    assert app["command"][:7] == [  # type: ignore[index]
        *("python", "-m", "clients.node", "app", "--home", f"{home}/app", "--policy")
    ]
    assert app["build"]["dockerfile"] == str(tmp_path / ODD / "out" / "Dockerfile")  # type: ignore[index]
    mounts = {each["source"]: each.get("read_only") for each in app["volumes"]}  # type: ignore[index]
    assert mounts == {f"{home}/app": None, "/srv/data of aachen": True}
    mounts = {each["source"]: each.get("read_only") for each in supernode["volumes"]}  # type: ignore[index]
    assert mounts == {
        f"{home}/node.yaml": True,
        f"{home}/node.pub": True,
        f"{home}/node": None,
        "/srv/the ca.crt": True,
    }
    assert (app["mem_limit"], app["cpus"], app["pids_limit"]) == ("11G", 2, 1024)  # type: ignore[index]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units(odd_node: NodeHome, tmp_path: Path) -> None:
    place = tmp_path / ODD / "coordinator"
    place.mkdir()
    odd = coordinator(place)
    units = [*write_node(odd_node, tmp_path / "out", "systemd")]
    argv = ["--home", str(odd.folder), "--runs", str(tmp_path / ODD), "--user", "root"]
    assert main(["template", *argv, "--out", str(tmp_path / "units"), "systemd"]) == 0
    units += [tmp_path / "units" / "fl-ppseg-coordinator.service"]
    for unit in units:  # users that this machine has not are not what is tried here
        unit.write_text(re.sub(r"^User=.*$", "User=root", unit.read_text(), flags=re.M))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "fl-ppseg" in line]
    assert (ours, done.returncode) == ([], 0), done.stderr


@pytest.mark.parametrize("name", ["a\nUser=root", "a\x1b[0m", "a\u202eb"])
@pytest.mark.parametrize("kind", ["systemd", "compose"])
def test_what_no_file_can_hold_is_refused(name: str, kind: str, tmp_path: Path, home: Home) -> None:
    argv = ["template", "--home", str(home.folder), "--runs", f"/srv/{name}"]
    with pytest.raises(InputError, match="expected only printable characters"):
        main([*argv, "--out", str(tmp_path / "out"), kind])
    assert not (tmp_path / "out").exists()


def test_a_user_is_a_users_name(tmp_path: Path, home: Home) -> None:
    argv = ["template", "--home", str(home.folder), "--runs", "/srv/runs", "--user", "a }; b"]
    with pytest.raises(InputError, match="is not a user name"):
        main([*argv, "--out", str(tmp_path / "out"), "systemd"])


def test_a_word_is_one_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert unescaped(quoted("systemd", ODD)) == [ODD]
    assert yaml.safe_load(quoted("compose", ODD)).replace("$$", "$") == ODD
    monkeypatch.setattr(templates.sys, "executable", "/opt/$x/python")
    with pytest.raises(InputError, match=r"systemd does not accept \$"):
        write_templates("coordinator", "systemd", tmp_path, {})
