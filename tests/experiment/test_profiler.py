"""`--profile`: every part where it belongs, the same weights, and rounds that stay when resumed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_federation as small
import yaml

from clients.vault.shards import encrypting
from fl_ppseg.config.run_layout import PROFILE
from fl_ppseg.data.shard import Shard
from fl_ppseg.federation.profile import ALL_PARTS, RunProfile, TimeParts, load_profile
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.learning import training
from fl_ppseg.system import spans
from strategies.aggregation.streaming_mean import StreamingMean
from strategies.rounds import exchange

Simulate = Callable[..., tuple[int, str, str]]
NAP = 0.15
TOLERANCE = 0.1
"""Seconds that a round's line of results may miss its bar by: they begin at other moments."""


def profile_of(run: Path) -> RunProfile:
    found = load_profile(run)
    assert found is not None
    return found


def all_parts(profile: RunProfile) -> list[TimeParts]:
    return [profile.preparation, *profile.rounds, profile.conclusion]


def test_a_run_without_it_has_none(tmp_path: Path, simulate: Simulate) -> None:
    assert simulate("--quiet", "--arms", "plain", "--out", str(tmp_path / "o"))[0] == 0
    assert not (tmp_path / "o" / PROFILE).exists()
    assert "Where the time went" not in (tmp_path / "o" / "report.html").read_text("utf-8")


def test_it_changes_no_weight(tmp_path: Path, simulate: Simulate) -> None:
    """One owner's vault for both runs: the shards that the first made are those of the second."""
    arms, bits = ["plain", "per-client-private", "per-image-invariant-shuffle"], []
    for out, options in (("with", ["--profile"]), ("without", [])):
        run = tmp_path / out
        given = ("--quiet", "--arms", ",".join(arms), "--seed", "3", "--out", str(run), *options)
        assert simulate(*given)[0] == 0
        bits.append([small.bits(small.final(RunFolder(run), arm, 3)) for arm in arms])
    assert bits[0] == bits[1]
    assert len(set(bits[0])) == len(arms)


def test_rounds_parts_and_report(tmp_path: Path, simulate: Simulate) -> None:
    began = time.monotonic()
    changes = {"arms": ["plain", "per-image"], "seeds": [0, 1]}
    status, out, err = simulate("--quiet", "--profile", "--out", str(tmp_path / "o"), **changes)
    wall = time.monotonic() - began
    assert (status, err) == (0, "")
    assert spans.FOLDER not in os.environ
    profile = profile_of(tmp_path / "o")
    assert [(each.arm, each.seed, each.round) for each in profile.rounds] == [
        (arm, seed, number)
        for seed in (0, 1)
        for arm in ("plain", "per-image")
        for number in (0, 1, 2)
    ]
    assert wall - 0.5 < profile.total.wall < wall  # nothing is left out, nothing counts twice
    (start,) = profile.starts
    assert (start.engine, start.num_workers) == ("in-process", 1)
    lines = RunFolder(tmp_path / "o").lines()
    for each in profile.rounds:
        own = [
            x
            for x in lines
            if (x["arm"], x["seed"], x["round"]) == (each.arm, each.seed, each.round)
        ]
        (whole,) = (x["seconds"] for x in own if x["role"] == "round")
        assert whole - 0.01 < each.wall < whole + TOLERANCE
        assert sum(each.of(part) for part in ALL_PARTS) == pytest.approx(each.wall, abs=1e-3)
        assert each.compute > 0 and each.wire > 0 and each.data > 0
        assert each.encryption == 0
        if each.round:
            assert each.aggregation > 0.001
        else:  # is only scored: counts are added
            assert each.aggregation < 0.1 * each.wall
        trained = sum(x["seconds"] for x in own if x["role"] == "train")
        work = sum(x["seconds"] for x in own if x["role"] != "round")
        assert trained - 0.01 < each.compute + each.data <= work + TOLERANCE
    assert profile.preparation.encryption > 0 and profile.preparation.data > 0
    assert profile.conclusion.compute > 0  # each val image is scored
    assert "the whole run took" in " ".join(out.split()) and "waiting" in out

    page = (tmp_path / "o" / "report.html").read_text("utf-8")
    section = page.partition("Where the time went")[2].partition("</section>")[0]
    assert section.count("<svg") == 1 and "per-image, seed 1" in section
    assert "var(--rule)" in section and "var(--ink)" in section  # follows light and dark
    assert "12 rounds" in section and "conclusion" in section


def slow(patch: pytest.MonkeyPatch, where: Any, name: str) -> None:
    """Have a function take a while longer."""
    inner = getattr(where, name)

    def slowly(*given: Any, **named: Any) -> Any:
        time.sleep(NAP)
        return inner(*given, **named)

    patch.setattr(where, name, slowly)


SLOW = {
    "data": (Shard, "batch"),
    "encryption": (encrypting, "encrypted"),
    "compute": (training, "_loss"),
    "wire": (exchange, "pack_request"),
    "aggregation": (StreamingMean, "add"),
}


@pytest.mark.parametrize("part", SLOW)
def test_a_part_that_is_made_slow_is_the_one_that_grows(
    part: str, tmp_path: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    where, name = SLOW[part]
    slow(monkeypatch, where, name)
    slowed = getattr(where, name)

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return slowed(*given, **named)

    monkeypatch.setattr(where, name, counted)
    options = ("--quiet", "--profile", "--arms", "per-image", "--out", str(tmp_path / "o"))
    assert simulate(*options, federation={"num_rounds": 1})[0] == 0
    profile = profile_of(tmp_path / "o")
    of_run = profile.total
    assert calls >= 3
    assert calls * NAP <= of_run.of(part) < calls * NAP + 1.5
    for other in {*SLOW} - {part}:
        assert of_run.of(other) < 1.5
    grown = max(all_parts(profile), key=lambda each: each.of(part))
    assert grown is (
        profile.starts[0].preparation if part == "encryption" else profile.rounds[1]
    ) or (grown == (profile.preparation if part == "encryption" else profile.rounds[1]))


def test_waiting_is_what_is_left(
    tmp_path: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, RunFolder, "latest")  # of no part
    options = ("--quiet", "--profile", "--arms", "plain", "--out", str(tmp_path / "o"))
    assert simulate(*options, federation={"num_rounds": 1})[0] == 0
    assert profile_of(tmp_path / "o").total.waiting > 3 * NAP


def test_a_resumed_run_keeps_its_rounds_and_adds_a_start(
    tmp_path: Path, simulate: Simulate
) -> None:
    out = ("--quiet", "--out", str(tmp_path / "o"))
    assert simulate(*out, "--profile", "--arms", "plain")[0] == 0
    first = profile_of(tmp_path / "o")
    more = ("--resume", "--set", "federation.num_rounds=3")
    assert simulate(*out, "--profile", *more)[0] == 0
    then = profile_of(tmp_path / "o")
    assert then.rounds[:3] == first.rounds
    assert [each.round for each in then.rounds] == [0, 1, 2, 3]
    assert then.starts[0] == first.starts[0] and len(then.starts) == 2
    page = (tmp_path / "o" / "report.html").read_text("utf-8")
    assert "4 rounds" in page.partition("Where the time went")[2]

    more = ("--resume", "--set", "federation.num_rounds=4")  # nobody measures
    assert simulate(*out, *more)[0] == 0
    assert profile_of(tmp_path / "o") == then
    assert "Where the time went" in (tmp_path / "o" / "report.html").read_text("utf-8")

    assert simulate(*out, "--resume", "--profile")[0] == 0  # there is nothing left to train
    assert len(profile_of(tmp_path / "o").starts) == 3


def test_an_interrupted_run_has_the_rounds_that_it_finished(
    tmp_path: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, left = StreamingMean.result, [1]

    def interrupted(self: StreamingMean) -> Any:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return inner(self)

    monkeypatch.setattr(StreamingMean, "result", interrupted)
    out = ("--quiet", "--profile", "--out", str(tmp_path / "o"))
    status, _, err = simulate(*out, "--arms", "plain")
    assert status == 1 and "--profile" in err  # in the command to resume it
    profile = profile_of(tmp_path / "o")
    assert [each.round for each in profile.rounds] == [0, 1]
    assert profile.starts[0].conclusion is None
    assert spans.FOLDER not in os.environ
    monkeypatch.setattr(StreamingMean, "result", inner)
    assert simulate(*out, "--resume")[0] == 0
    assert [each.round for each in profile_of(tmp_path / "o").rounds] == [0, 1, 2]


def test_a_damaged_profile_is_refused_before_the_work(tmp_path: Path, simulate: Simulate) -> None:
    out = ("--quiet", "--profile", "--out", str(tmp_path / "o"))
    assert simulate(*out, "--arms", "plain")[0] == 0
    (tmp_path / "o" / PROFILE).write_text("{}]")
    status, _, err = simulate(*out, "--resume", "--set", "federation.num_rounds=3")
    assert status == 2 and PROFILE in err
    assert len(RunFolder(tmp_path / "o").lines()) == 5 + 2 * 8 + 3
    assert simulate("--quiet", "--out", str(tmp_path / "o"), "--resume")[0] == 0  # only not shown
    assert "Where the time went" not in (tmp_path / "o" / "report.html").read_text("utf-8")


def test_preparing_alone_measures_nothing(tmp_path: Path, simulate: Simulate) -> None:
    status, _, err = simulate("--prepare", "--profile", "--out", str(tmp_path / "o"))
    assert status == 2 and "--profile" in err


@pytest.mark.federated
def test_workers_of_rays_are_measured_too(scenes: Path, tmp_path: Path) -> None:
    settings = small.settings(scenes, arms=["plain", "per-client-private"], engine="ray")
    config = tmp_path / "ray.yaml"
    config.write_text(yaml.safe_dump(settings | {"num_workers": 2}))
    command = [sys.executable, "-m", "fl_ppseg.simulate", "--config", str(config), "--profile"]
    command += ["--out", str(tmp_path / "o"), "--vault-dir", str(tmp_path / "vaults"), "--quiet"]
    root, began = Path(__file__).parents[2], time.monotonic()
    done = subprocess.run(command, cwd=root, timeout=240, capture_output=True, text=True)
    wall = time.monotonic() - began
    assert (done.returncode, done.stderr) == (0, "")
    profile = profile_of(tmp_path / "o")
    (start,) = profile.starts
    assert (start.engine, start.num_workers) == ("ray", 2)
    assert start.preparation.encryption > 0  # in processes of the vaults' pool
    work = [json.loads(x) for x in (tmp_path / "o" / "results.jsonl").read_text().splitlines()]
    for each in profile.rounds:
        own = [x for x in work if (x["arm"], x["round"]) == (each.arm, each.round) and x["client"]]
        trained = sum(x["seconds"] for x in own if x["role"] == "train")
        whole = sum(x["seconds"] for x in own)
        assert trained / 2 - 0.01 < each.compute + each.data <= whole / 2 + TOLERANCE
    assert profile.total.wall < wall < profile.total.wall + 15  # but for the end of Ray
    assert 0 < profile.total.compute < profile.total.wall
