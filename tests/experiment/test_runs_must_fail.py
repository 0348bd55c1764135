"""What the parsers of a run refuse, each in one line, and that they take what is whole."""

import json
from collections.abc import Callable
from pathlib import Path

import must_fail
import numpy as np
import pytest
from checkout import VECTORS
from safetensors.numpy import save

from fl_ppseg.data.partition.record import Partition
from fl_ppseg.federation.checkpoints import find_checkpoint, load_checkpoint, model_of
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.setr.tensor_file import read_header
from fl_ppseg.setr.weights import check_weights_file
from fl_ppseg.system.errors import InputError

CONTROL = VECTORS / "control"


def refused(call: Callable[[], object], vector: must_fail.Vector) -> None:
    with pytest.raises(InputError) as error:
        call()
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert vector.error in message


@must_fail.of("results")
def test_results_that_must_fail(vector: must_fail.Vector, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.results.write_bytes(vector.content)
    refused(folder.lines, vector)


@must_fail.of("weights")
def test_weights_files_that_must_fail(vector: must_fail.Vector, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(vector.content)
    refused(lambda: check_weights_file(path), vector)


@must_fail.of("checkpoint")
def test_checkpoints_that_must_fail(vector: must_fail.Vector, tmp_path: Path) -> None:
    path = tmp_path / "round_0003.safetensors"
    path.write_bytes(bytes.fromhex(control("checkpoint")["safetensors"]))
    path.with_suffix(".json").write_bytes(vector.content)
    refused(lambda: load_checkpoint(path), vector)


@must_fail.of("run_folder")
def test_partitions_that_must_fail(vector: must_fail.Vector) -> None:
    refused(lambda: Partition.from_json(vector.content.decode("utf-8")), vector)


def control(parser: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((CONTROL / f"{parser}.json").read_text("utf-8"))
    return found


def test_the_controls_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "run" / "plain" / "seed_0" / "round_0003.safetensors"
    path.parent.mkdir(parents=True)
    whole = control("checkpoint")
    path.write_bytes(bytes.fromhex(whole["safetensors"]))
    path.with_suffix(".json").write_text(whole["json"])
    checkpoint = load_checkpoint(path)
    assert checkpoint.round == 3
    assert model_of(checkpoint).patch_size == 8
    for folder in (path.parent, path.parent.parent, tmp_path / "run"):
        assert find_checkpoint(folder) == path
    other = path.parent.parent.parent / "per-image" / "seed_0"
    other.mkdir(parents=True)
    for suffix in (".json", ".safetensors"):
        (other / f"round_0004{suffix}").write_bytes(path.with_suffix(suffix).read_bytes())
    with pytest.raises(InputError, match="several arms or seeds"):
        find_checkpoint(tmp_path / "run")
    with pytest.raises(InputError, match="no checkpoint found"):
        find_checkpoint(CONTROL)
    assert set(Partition.from_json(control("run_folder")["partition.json"]).clients) == {"a", "b"}


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It has neither a hash of its own nor one of the settings."""
    path = tmp_path / "round_0003.safetensors"
    whole = control("checkpoint")
    about = json.loads(whole["json"])
    del about["about_sha256"], about["settings"]
    path.write_bytes(bytes.fromhex(whole["safetensors"]))
    path.with_suffix(".json").write_text(json.dumps(about))
    assert load_checkpoint(path).round == 3


def test_every_bit_of_a_description_counts(tmp_path: Path) -> None:
    path = tmp_path / "round_0003.safetensors"
    whole = control("checkpoint")
    path.write_bytes(bytes.fromhex(whole["safetensors"]))
    text = whole["json"].encode()
    same = json.loads(text)
    for place in range(0, len(text), 5):
        damaged = bytearray(text)
        damaged[place] ^= 1 << place % 7
        try:
            if json.loads(damaged) == same:  # a blank that became another blank
                continue
        except ValueError:
            pass
        path.with_suffix(".json").write_bytes(bytes(damaged))
        with pytest.raises(InputError):
            load_checkpoint(path)


def test_the_header_says_what_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    arrays = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.int64)}
    path.write_bytes(save(arrays, {"grid": "8x16"}))
    header = read_header(path)
    assert (dict(header.shapes), header.num_elements) == ({"a": (2, 3), "b": ()}, 7)
    assert header.metadata == {"grid": "8x16"}


def test_weights_of_more_than_any_model_are_refused_unread(tmp_path: Path) -> None:
    """4.6 GB, of which the disk holds none."""
    number = 1_150_000_000
    entry = {"dtype": "F32", "shape": [number], "data_offsets": [0, 4 * number]}
    text = json.dumps({"backbone.w": entry}).encode()
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 4 * number)
    with pytest.raises(InputError, match="1,150 million numbers, at most 1,000 million are read"):
        check_weights_file(path)
