"""What goes out: the bundle of the app, a run's cities, units and compose files."""

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
from small_coordinator import coordinator

from fl_ppseg.deployment.cities import Cities, load_cities, save_cities
from fl_ppseg.errors import InputError
from strategies.coordinator.command import main
from strategies.coordinator.home import Home
from strategies.coordinator.superlink import read_bundle

CHECKOUT = Path(__file__).resolve().parents[1]
CITIES = Cities(train=("aachen",), val=("lindau",))


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
