"""YAML and JSON of others: bounded, one line, and quick to refuse."""

import json
import os
import time
from pathlib import Path

import must_fail
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.config.documents import parse_json, parse_yaml, read_yaml
from fl_ppseg.config.loading import dump_config, load_config
from fl_ppseg.system.errors import InputError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


def refusal(path: Path) -> str:
    begin = time.process_time()
    with pytest.raises(InputError) as refused:
        load_config(path)
    assert time.process_time() - begin < 5
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(path))
    return message


@must_fail.of("config")
def test_configs_that_must_fail(vector: must_fail.Vector, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(vector.content)
    assert vector.error in refusal(path)


@must_fail.of("arm_table")
def test_arm_tables_that_must_fail(vector: must_fail.Vector, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(vector.content)
    assert vector.error in refusal(path)


def test_what_is_on_the_bound_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "x-y: &sizes {num_views: 2}\n".replace("x-y", "data")
        + "arm_table:\n  my.arm_1+2=3: &arm {note: n}\n  again: {<<: *arm, note: m}\n"
        "arms: [my.arm_1+2=3, again]\nmodel: {depth: 128}\n"
    )
    config = load_config(path)
    assert config.arms == ("my.arm_1+2=3", "again")
    assert (config.arm_table["again"].note, config.data.num_views) == ("m", 2)
    assert parse_yaml("[" * 32 + "]" * 32, "x") is not None
    assert parse_json("[" * 64 + "]" * 64, "x") is not None


def test_a_config_in_a_run_folder_that_was_changed_is_noticed(tmp_path: Path) -> None:
    """Every bit of it, but those of line ends that mean the same."""
    path = tmp_path / "config.yaml"
    whole = dump_config(load_config()).encode()
    path.write_bytes(whole)
    assert load_config(path) == load_config()
    for place in range(0, len(whole) - 1, 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 7
        path.write_bytes(bytes(damaged))
        refusal(path)
    path.write_bytes(whole.replace(b"clients: 18", b"clients: 81"))
    assert "was changed since it was written" in refusal(path)


def test_files_that_are_none_or_endless(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="not a regular file"):
        read_yaml(pipe)
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(Path("/dev/zero"))
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="expected at most 1,048,576 bytes"):
        read_yaml(large)
    large.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(large)


@given(PLAIN)
def test_what_the_safe_loader_reads_is_read_to_the_same(values: object) -> None:
    text = yaml.safe_dump(values)
    assert parse_yaml(text, "x") == yaml.safe_load(text)
    try:
        written = json.dumps(values, allow_nan=False)
    except ValueError:  # infinity, which JSON has not
        with pytest.raises(InputError, match="is not a number"):
            parse_json(json.dumps(values), "x")
    else:
        assert parse_json(written, "x") == values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 65 + "]" * 65, "nested at most 64 deep"),
        ("[" * 100_000, "nested at most 64 deep"),
        ('{"a": 1, "a": 2}', "key 'a' is given twice"),
        ("9" * 5_000, "at most 20 digits"),
        ("", "not JSON"),
        ("[1", "not JSON"),
        ("1" * (2**20 + 1), "expected at most 1,048,576 bytes"),
        ("\ud800", "not JSON"),
    ],
    ids=["65 brackets", "deep", "twice", "digits", "empty", "cut", "large", "surrogate"],
)
def test_json_that_must_fail(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        parse_json(text, "x")
    assert len(str(refused.value).splitlines()) == 1
