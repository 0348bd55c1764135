"""What the server is told: run configs, clients.json, and the keys of those that take part."""

import json
import tomllib
from pathlib import Path

import must_fail
import pytest
from checkout import CHECKOUT
from small_coordinator import public_key

from fl_ppseg.config.run_layout import CLIENTS
from fl_ppseg.deployment.clients import Clients, load_clients, save_clients
from fl_ppseg.deployment.identity import fingerprint, read_public_key
from fl_ppseg.system.errors import InputError
from strategies.rounds.run_config import RunConfig, expected_roles, parse_run_config


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").touch()
    return folder


def refused(error: pytest.ExceptionInfo[InputError], vector: must_fail.Vector) -> None:
    message = str(error.value)
    assert vector.error in message
    assert "\n" not in message and len(message) < 1000


@must_fail.of("run_submission")
def test_submissions_that_must_fail(vector: must_fail.Vector, run: Path) -> None:
    values = json.loads(vector.content.decode().replace("{run}", str(run)))
    with pytest.raises(InputError) as error:
        parse_run_config(values)
    refused(error, vector)


def test_a_submission_is_taken_as_it_is(run: Path) -> None:
    found = parse_run_config({"run-dir": str(run), "num-nodes": 3})
    assert (found.run_dir, found.num_nodes) == (str(run), 3)


def test_the_defaults_of_the_app_are_those_of_the_type() -> None:
    """`flwr run .` sends all of them; one that differed would be taken for a choice of the user."""
    app = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    found = parse_run_config(app["config"])
    assert found == parse_run_config({"run-dir": "", "num-nodes": 0})
    assert set(app["config"]) == {
        field.alias or name for name, field in RunConfig.model_fields.items()
    }


@must_fail.of("clients")
def test_lists_of_clients_that_must_fail(vector: must_fail.Vector, run: Path) -> None:
    (run / CLIENTS).write_bytes(vector.content)
    with pytest.raises(InputError) as error:
        expected_roles(run)
    refused(error, vector)


def test_a_list_of_clients_gives_each_its_role(run: Path) -> None:
    assert expected_roles(run) is None
    save_clients(Clients(train=("aachen", "bochum"), val=("lindau",)), run)
    assert load_clients(run).all == ("aachen", "bochum", "lindau")
    assert expected_roles(run) == {"aachen": "train", "bochum": "train", "lindau": "val"}


@must_fail.of("enrolment_key")
def test_keys_that_must_fail(vector: must_fail.Vector, tmp_path: Path) -> None:
    path = tmp_path / "node.pub"
    path.write_bytes(vector.content)
    with pytest.raises(InputError) as error:
        read_public_key(path)
    refused(error, vector)


def test_a_node_s_key_is_taken(tmp_path: Path) -> None:
    path = public_key(tmp_path, "aachen")
    assert read_public_key(path).startswith(b"-----BEGIN PUBLIC KEY-----")
    assert fingerprint(path).startswith("SHA256:")
