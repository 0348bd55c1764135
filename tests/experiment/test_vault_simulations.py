"""What past simulations keep: listed, and cleared without a touch on what owners made."""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killed_at_events import killed_at
from small_owner import fails, files_in

from clients.vault import layout
from clients.vault.command import main
from clients.vault.keys.keyring import Vault
from clients.vault.simulations import inventory
from fl_ppseg.crypto.keys import ClientKey
from fl_ppseg.system.command_line import run
from fl_ppseg.system.files import vaults_folder

Simulate = Callable[..., tuple[int, str, str]]
CLIENTS = ["aachen", "bochum", "bremen", "lindau", "munster"]


class Machine:
    """Two simulations on one machine that share the images of one arm."""

    def __init__(self, simulate: Simulate, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._simulate, self.place, self._capsys = simulate, place, capsys
        self.vaults = place / "vaults"
        self.prepare("one", "per-client", "plain")
        self.prepare("two", "per-client", "per-image")

    def prepare(self, name: str, *arms: str) -> None:
        """Prepare a run."""
        outcome = self._simulate("--prepare", "--out", str(self.place / name), arms=list(arms))
        assert outcome[0] == 0, outcome[2]

    def call(self, verb: str, *options: object) -> tuple[int, str, str]:
        """Run a verb on the vaults."""
        self._capsys.readouterr()
        status = run(main, [verb, "--vault", str(self.vaults), *map(str, options)])
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def name(self, run_folder: str) -> str:
        """Of a run, as `list` has it."""
        (found,) = self.vaults.glob(f".nodes/{run_folder}-*")
        return found.name

    def shards(self) -> set[str]:
        """Every shard that is there."""
        return {str(p.relative_to(self.vaults)) for p in self.vaults.glob("*/shards/*")}

    def named(self, run_folder: str) -> set[str]:
        """Every shard that the policies of a run name."""
        text = "".join(
            p.read_text() for p in self.vaults.glob(f".nodes/{run_folder}-*/node_*.yaml")
        )
        return set(re.findall(r"[a-z]+/shards/[0-9a-f]{32}", text))


@pytest.fixture
def machine(simulate: Simulate, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Machine:
    return Machine(simulate, tmp_path, capsys)


def test_runs_are_listed_with_age_size_and_folder(machine: Machine) -> None:
    shutil.rmtree(machine.place / "one")
    old = time.time() - 3 * 86400
    os.utime(machine.vaults / ".nodes" / machine.name("one"), (old, old))
    status, out, _ = machine.call("list")
    assert status == 0 and f"{machine.vaults}: 2 simulated runs" in out
    two, one = (line.split() for line in out.splitlines()[2:4])
    assert (one[0], " ".join(one[1:3])) == (machine.name("one"), "3 days")
    assert one[-2:] == [str(machine.place / "one"), "(gone)"]
    assert two[0] == machine.name("two") and two[-1] == str(machine.place / "two")
    sizes = {}
    for name in ("one", "two"):
        folders = [machine.vaults / shard for shard in machine.named(name)]
        sizes[name] = sum(len(c) for folder in folders for c in files_in(folder).values())
    assert f"{sizes['one'] / 1000:.3g} kB" in out and f"{sizes['two'] / 1000:.3g} kB" in out


def test_clearing_one_run_leaves_what_another_shares(machine: Machine) -> None:
    kept, gone = machine.named("two"), machine.named("one") - machine.named("two")
    assert len(gone) == 5 and gone < machine.shards()
    keys = {client: (machine.vaults / client / "master.key").read_bytes() for client in CLIENTS}
    fails(machine.call("clear", "--run", machine.name("one")), "nothing was removed; add --confirm")
    assert machine.shards() == kept | gone
    status, out, _ = machine.call("clear", "--run", machine.name("one"), "--confirm")
    assert status == 0 and "1 run and" in out and "0 vaults removed" in out
    assert machine.shards() == kept
    assert [path.name for path in machine.vaults.glob(".nodes/*")] == [machine.name("two")]
    assert {
        client: (machine.vaults / client / "master.key").read_bytes() for client in CLIENTS
    } == keys
    assert machine._simulate("--prepare", "--resume", "--out", str(machine.place / "two"))[0] == 0
    outcome = machine._simulate("--prepare", "--resume", "--out", str(machine.place / "one"))
    fails(outcome, "holds no vault of this run")


def test_clearing_all_leaves_nothing_of_simulations(machine: Machine) -> None:
    machine.prepare("three", "conventional-2")
    assert (machine.vaults / ".shared/master.key").exists()
    status, out, _ = machine.call("clear", "--all", "--confirm")
    assert status == 0 and "5 vaults removed with their keys" in out
    assert list(files_in(machine.vaults)) == [".preparing"]
    assert machine.call("clear", "--all", "--confirm")[1].endswith("nothing to clear\n")
    assert machine.call("list")[1].startswith(f"{machine.vaults}: 0 simulated runs, 0 bytes")


def test_gone_and_old_runs_are_chosen_by_that(machine: Machine) -> None:
    assert "nothing to clear" in machine.call("clear", "--gone", "--confirm")[1]
    assert "nothing to clear" in machine.call("clear", "--older-than", "1", "--confirm")[1]
    shutil.rmtree(machine.place / "one")
    assert "1 run and" in machine.call("clear", "--gone", "--confirm")[1]
    assert "1 run and" in machine.call("clear", "--older-than", "0", "--confirm")[1]
    fails(machine.call("clear", "--confirm"), "expected a choice of runs: --gone")
    fails(machine.call("clear", "--run", "../aachen", "--confirm"), "no such run")
    fails(machine.call("clear", "--older-than", "x"), "expected a number of days")
    fails(machine.call("list", "--vault", machine.place / "nowhere"), "no vaults of simulations")


def test_owners_vaults_keep_their_keys(machine: Machine) -> None:
    """One made by `vault new`, one of an earlier version, which marked nothing."""
    owner = Vault(machine.vaults / "zell")
    key, record = owner.ensure_key(), owner.folder / "manifests" / f"{'a' * 32}.json"
    record.parent.mkdir()
    record.write_text("{}")
    (machine.vaults / "aachen" / layout.MARK).unlink()
    earlier = files_in(machine.vaults / "aachen")
    (machine.vaults / "bochum" / "floor.yaml").write_text("")
    (machine.vaults / "bremen" / "thesis.tex").write_text("mine")
    status, out, _ = machine.call("clear", "--all", "--confirm")
    assert status == 0 and "keys kept in aachen, zell:" in out and "2 vaults removed" in out
    assert ClientKey.load(owner.key_path) == key and record.exists()
    assert files_in(machine.vaults / "aachen") == {
        name: text for name, text in earlier.items() if name.split("/")[0] not in ("shards",)
    }
    for client in ("bochum", "bremen"):
        assert (machine.vaults / client / "master.key").exists()
    assert (machine.vaults / "bremen" / "thesis.tex").read_text() == "mine"
    assert machine.shards() == set()


def test_no_link_is_followed_and_nothing_else_is_touched(machine: Machine) -> None:
    thesis = machine.place / "home" / "thesis"
    thesis.mkdir(parents=True)
    (thesis / "a.tex").write_text("mine")
    before = files_in(machine.place / "home")
    for link in (
        machine.vaults / "aachen" / "shards" / ("b" * 32),
        machine.vaults / ".nodes" / f"x-{'c' * 12}",
        machine.vaults / ".nodes" / machine.name("one") / "more",
        machine.vaults / "dresden",
    ):
        link.symlink_to(thesis)
    (machine.vaults / "aachen" / "shards" / "notes").mkdir()
    status, _, error = machine.call("clear", "--all", "--confirm")
    assert status == 0, error
    assert files_in(machine.place / "home") == before
    assert {p.name for p in (machine.vaults / "aachen" / "shards").iterdir()} == {"b" * 32, "notes"}
    assert (machine.vaults / "aachen" / "master.key").exists()  # not empty: it stays
    (machine.vaults / "bremen").mkdir()
    (machine.vaults / "bremen" / "shards").symlink_to(thesis)
    fails(machine.call("clear", "--all", "--confirm"), "is a link")
    assert files_in(machine.place / "home") == before


def test_what_is_being_prepared_or_run_is_not_cleared(machine: Machine) -> None:
    before = files_in(machine.vaults)
    descriptor = os.open(machine.place / "one", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    fails(machine.call("clear", "--all", "--confirm"), "this run is in use by a process")
    os.close(descriptor)
    with inventory.lock_for_preparation(machine.vaults, machine.place / "four"):
        fails(machine.call("clear", "--all", "--confirm"), "a simulation is being prepared")
    assert files_in(machine.vaults) == before


def test_what_preparations_left_that_were_cut_short_goes_after_a_day(machine: Machine) -> None:
    left = machine.vaults / "aachen" / "shards" / ("d" * 32)
    shutil.copytree(machine.vaults / sorted(machine.named("one"))[0], left)
    assert "nothing to clear" in machine.call("clear", "--gone", "--confirm")[1]
    old = time.time() - 2 * 86400
    os.utime(left, (old, old))
    assert machine.call("clear", "--gone", "--confirm")[0] == 0
    assert not left.exists() and machine.shards() == machine.named("one") | machine.named("two")


def test_clearing_killed_anywhere_can_be_finished(machine: Machine) -> None:
    before = machine.place / "before"
    shutil.copytree(machine.vaults, before)
    options = ["--vault", str(machine.vaults), "--all", "--confirm"]
    number, step = 1, 7  # of some three hundred events
    while True:
        shutil.rmtree(machine.vaults)
        shutil.copytree(before, machine.vaults)
        if not killed_at(number, lambda: run(main, ["clear", *options])):
            break
        assert machine.call("clear", "--all", "--confirm")[0] == 0
        assert {str(p.relative_to(machine.vaults)) for p in machine.vaults.rglob("*")} <= {
            ".preparing", ".nodes"
        }  # fmt: skip
        number += step
    assert number > 100


@pytest.mark.parametrize(
    "note", ["", "[]", '{"run": 3}', '{"run": "../x"}', '{"run": "/x\\u0000"}', "[" * 9999]
)
def test_a_note_that_is_none_makes_the_run_one_of_unknown_folder(
    note: str, machine: Machine
) -> None:
    (machine.vaults / ".nodes" / machine.name("one") / inventory.NOTE).write_text(note)
    status, out, _ = machine.call("list")
    assert status == 0 and "(unknown: made by an earlier version)" in out
    assert "nothing to clear" in machine.call("clear", "--gone", "--confirm")[1]


def test_the_default_is_where_simulations_keep_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert vaults_folder() == tmp_path / "fl_ppseg" / "vaults"
    assert run(main, ["list"]) == 2
    assert str(vaults_folder()) in capsys.readouterr().err


def test_a_person_is_asked(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Any = iter(["", "y", "no", "yes"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    for _ in range(3):
        fails(machine.call("clear", "--all"), "nothing was removed")
    assert machine.call("clear", "--all")[0] == 0
    assert json.loads((machine.place / "one/partition.json").read_text())  # results stay
