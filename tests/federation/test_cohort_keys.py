"""Public cohort keys: files of owners and of run folders, bounded, whole, and each key once."""

import json
from pathlib import Path

import pytest

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.config.run_layout import COHORT
from fl_ppseg.federation.cohort_keys import (
    MAX_BYTES,
    load_cohort_keys,
    read_cohort_file,
    save_cohort_keys,
)
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.secure_sum.node_secret import NodeSecret
from fl_ppseg.secure_sum.roster import MAX_CLIENTS
from fl_ppseg.system.errors import InputError
from strategies.coordinator.cohort import UNCHECKED, keep_cohort

KEYS = {name: NodeSecret(bytes([n] * 32)).public_key for n, name in enumerate(["b", "a", "c"], 1)}
SUMS = FederationConfig(secure_aggregation=True)


def written(place: Path, text: str) -> Path:
    place.write_text(text, "utf-8")
    return place


def lines(keys: dict[str, str]) -> str:
    return "".join(f"{client}: {key}\n" for client, key in keys.items())


def test_a_run_folder_keeps_the_keys(tmp_path: Path) -> None:
    assert load_cohort_keys(tmp_path) is None
    save_cohort_keys(KEYS, tmp_path)
    assert load_cohort_keys(tmp_path) == KEYS
    save_cohort_keys({"a": KEYS["a"], "b": KEYS["b"]}, tmp_path)
    assert load_cohort_keys(tmp_path) == {"a": KEYS["a"], "b": KEYS["b"]}
    assert [path.name for path in tmp_path.iterdir()] == [COHORT]


def test_most_clients_fit_into_the_bounds(tmp_path: Path) -> None:
    many = {f"{'x' * 50}{n:05d}": f"{n:064x}" for n in range(MAX_CLIENTS)}
    save_cohort_keys(many, tmp_path)
    assert (tmp_path / COHORT).stat().st_size < MAX_BYTES
    assert load_cohort_keys(tmp_path) == many


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "not JSON"),
        ("[]", "expected"),
        (json.dumps({"keys": {"a": KEYS["a"]}}), "at least 2"),
        (json.dumps({"keys": {"a": KEYS["a"], "b": KEYS["a"]}}), "the same cohort key"),
        (json.dumps({"keys": {"a": KEYS["a"], "b": "00"}}), "keys.b"),
        (json.dumps({"keys": {"a": KEYS["a"], "../b": KEYS["b"]}}), "keys"),
        (json.dumps({"keys": KEYS, "more": 1}), "more"),
        (" " * (MAX_BYTES + 1), "expected at most"),
    ],
)
def test_a_damaged_file_of_a_run_is_one_line(content: str, why: str, tmp_path: Path) -> None:
    written(tmp_path / COHORT, content)
    with pytest.raises(InputError, match=why) as caught:
        load_cohort_keys(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a: [", "not YAML"),
        (lines({"a": KEYS["a"]}), "at least 2"),
        (lines({"a": KEYS["a"], "b": KEYS["a"]}), "two clients have the same cohort key"),
        (lines({"a": KEYS["a"], "b": KEYS["b"][:-1]}), "keys.b"),
        (lines({"a": KEYS["a"], "b/c": KEYS["b"]}), "keys"),
        (lines(KEYS) + lines({"a": KEYS["a"]}), "a"),
    ],
)
def test_a_damaged_file_of_owners_is_one_line(content: str, why: str, tmp_path: Path) -> None:
    file = written(tmp_path / "cohort.yaml", content)
    with pytest.raises(InputError, match=why) as caught:
        read_cohort_file(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_the_coordinator_is_given_them_once(tmp_path: Path) -> None:
    run, said = RunFolder(tmp_path / "run"), list[str]()
    run.path.mkdir()
    file = written(tmp_path / "cohort.yaml", lines(KEYS))
    keep_cohort(run, SUMS, ["a", "b"], None, said.append)
    assert said == [UNCHECKED] and load_cohort_keys(run.path) is None
    keep_cohort(run, SUMS, ["a", "b"], file, said.append)
    assert load_cohort_keys(run.path) == KEYS
    keep_cohort(run, SUMS, ["a", "b"], None, said.append)
    assert said == [UNCHECKED] and load_cohort_keys(run.path) == KEYS


def test_a_file_that_lacks_a_client_or_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    run, said = RunFolder(tmp_path), list[str]()
    file = written(tmp_path / "cohort.yaml", lines(KEYS))
    with pytest.raises(InputError, match="that of bonn, ulm is missing"):
        keep_cohort(run, SUMS, ["a", "ulm", "bonn"][::-1], file, said.append)
    with pytest.raises(InputError, match=r"has no federation\.secure_aggregation"):
        keep_cohort(run, FederationConfig(), ["a"], file, said.append)
    keep_cohort(run, FederationConfig(), ["a"], None, said.append)
    assert not said and load_cohort_keys(run.path) is None
