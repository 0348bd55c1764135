"""A run proves that its nodes serve it: another run's nodes refuse, and no number is printed."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import must_fail
import pytest
import small_federation as small
from flwr.common.config import parse_config_args

from clients.policy.ledger import LEDGER, read_ledger
from clients.policy.node_policy import load_policy, policy_path, state_path
from fl_ppseg.config.run_layout import NODES
from fl_ppseg.experiment import simulation
from fl_ppseg.experiment.simulation import toml_text
from fl_ppseg.federation.run_identity import Identity, read_identity, save_identity
from fl_ppseg.system.errors import InputError, RunError
from fl_ppseg.system.installation import checkout

IDENTITY = Identity("0" * 32, "a" * 64)


def stale(first: Any, second: Any) -> Any:
    """The second run with the nodes of the first, which a SuperLink that outlived it keeps."""
    return replace(second, nodes=first.nodes)


def test_a_run_with_the_nodes_of_another_fails_in_one_line(scenes: Path, tmp_path: Path) -> None:
    """45.9 mIoU stood where 39.6 was true: the first run's images under the second run's name."""
    first = small.prepared(small.config(scenes, arms=["plain"]), tmp_path / "first")
    other = small.config(scenes, arms=["plain"], data={"num_views": 1})
    second = small.prepared(other, tmp_path / "second")
    with pytest.raises(RunError, match=r"expected \d of 5 nodes within") as caught:
        small.federate(stale(first, second))
    text = str(caught.value)
    assert "refused: this node was prepared for another run; if a SuperLink of an earlier" in text
    assert "stop it, set FL_PPSEG_NODES as printed, and start again" in text and "\n" not in text
    assert second.folder.lines() == []
    for number in range(5):
        assert read_ledger(state_path(first.nodes, number) / LEDGER) == []
    assert len(small.federate(second).lines()) > 0


def test_nodes_that_were_prepared_again_otherwise_refuse_what_was_before(
    scenes: Path, tmp_path: Path
) -> None:
    """The hash of what the nodes were given is a part of it, not the run's name alone."""
    experiment = small.prepared(small.config(scenes, arms=["plain"]), tmp_path)
    before = read_identity(experiment.folder.path)
    again = small.prepared(small.config(scenes, arms=["plain"]), tmp_path)
    assert read_identity(again.folder.path) == before is not None
    more = small.config(scenes, arms=["plain"], federation={"num_rounds": 9})
    small.prepared(more, tmp_path)
    after = read_identity(experiment.folder.path)
    assert after is not None and after.run == before.run and after.prepared != before.prepared
    save_identity(experiment.folder.path, before)
    with pytest.raises(RunError, match="prepared for another run"):
        small.federate(experiment)


def test_each_run_has_its_own_identity_and_its_nodes_have_it_too(
    scenes: Path, tmp_path: Path
) -> None:
    settings = small.config(scenes, arms=["plain"])
    runs = [small.prepared(settings, tmp_path / name) for name in ("one", "other")]
    shutil.rmtree(tmp_path / "other" / "run")
    runs.append(small.prepared(settings, tmp_path / "other"))
    found = [str(read_identity(run.folder.path)) for run in runs]
    assert found[0] != found[2] and found[0].partition("/")[0] != found[2].partition("/")[0]
    for run, identity in ((runs[0], found[0]), (runs[2], found[2])):
        for number in range(run.num_nodes):
            assert load_policy(policy_path(run.nodes, number)).run == identity


def test_a_run_goes_on_and_asks_no_question_twice_too_often(scenes: Path, tmp_path: Path) -> None:
    """A run that goes on, or lost its last round, asks the same: answered, and not counted."""
    settings = small.config(scenes, arms=["plain"], federation={"num_rounds": 3})
    experiment = small.prepared(settings, tmp_path)
    whole = small.final(small.federate(experiment), "plain")
    for _ in range(5):
        for file in (tmp_path / "run" / "plain" / "seed_0").glob("round_0003.*"):
            file.unlink()
        experiment = small.prepared(settings, tmp_path)
        assert small.bits(small.final(small.federate(experiment), "plain")) == small.bits(whole)
    entries = read_ledger(state_path(experiment.nodes, 0) / LEDGER)
    asked = [(entry.round, entry.task) for entry in entries]
    assert (asked.count((1, "train")), asked.count((3, "train"))) == (1, 6)
    assert len({entry.weights for entry in entries if entry.round == 3}) == 2


@must_fail.of("run_identity")
def test_a_damaged_identity_is_one_line(vector: must_fail.Vector, tmp_path: Path) -> None:
    assert read_identity(tmp_path) is None
    save_identity(tmp_path, IDENTITY)
    assert read_identity(tmp_path) == IDENTITY
    (tmp_path / NODES).write_bytes(vector.content)
    with pytest.raises(InputError) as caught:
        read_identity(tmp_path)
    assert vector.error in str(caught.value)
    assert str(tmp_path / NODES) in str(caught.value) and "\n" not in str(caught.value)


# What `--prepare` prints is typed into a shell.


@pytest.mark.parametrize(
    "name", ["run", "Lauf Nr. 2 – Größe (1)", "it's", 'a "run"', "$HOME;rm", "a\\tb", "x y=z"]
)
def test_each_path_is_one_word_and_flower_reads_it_back(
    name: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small.config(scenes, arms=["plain"])
    experiment = small.prepared(config, tmp_path / name)
    simulation._print_flwr_run(experiment)
    lines = capsys.readouterr().out.splitlines()
    path = str(experiment.folder.path)
    assert shlex.split(lines[1]) == ["cd", str(checkout())]
    export = shlex.split(next(line for line in lines if "FL_PPSEG_NODES" in line))
    assert export == ["export", f"FL_PPSEG_NODES={experiment.nodes}"]
    flwr = shlex.split(next(line for line in lines if "flwr run" in line))
    given = flwr[flwr.index("-c") + 1]
    assert parse_config_args([given]) == {"run-dir": path, "num-nodes": 5}
    again = shlex.split(next(line for line in lines if "--resume" in line))
    assert again[again.index("--out") + 1] == path
    assert again[again.index("--vault-dir") + 1] == str(tmp_path / name / "vaults")


@pytest.mark.parametrize("name", ["a\nb", "both ' and \"", "bell\a"])
def test_a_path_that_flower_cannot_take_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="choose another --out") as caught:
        toml_text(Path("/runs") / name)
    assert "\n" not in str(caught.value)


def test_the_identity_is_plain_json(tmp_path: Path) -> None:
    save_identity(tmp_path, IDENTITY)
    values = json.loads((tmp_path / NODES).read_text())
    assert values == {"schema": 1, "run": "0" * 32, "prepared": "a" * 64}
