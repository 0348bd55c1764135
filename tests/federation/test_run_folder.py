"""A run's folder: what is written stays, what is half written is nothing."""

import errno
import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from descriptions import described
from safetensors.numpy import load_file

from fl_ppseg.federation.checkpoint_file import Checkpoint, read_checkpoint, write_checkpoint
from fl_ppseg.federation.description import parse_description
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import sha256

ABOUT = described()
EARLIER = Path(__file__).parents[1] / "vectors" / "checkpoint_description.json"


def checkpoint(round: int) -> Checkpoint:
    return Checkpoint(
        round,
        {
            "backbone.w": np.array([[round, -0.0], [3e-45, 3.4e38]], np.float32),
            "norm.num_batches_tracked": np.array(round),
        },
        {
            "momentum": {"backbone.w": np.array([[0.1, 0.2], [0.3, round]])},
            "second": {"backbone.w": np.full((2, 2), 1e-200)},
        },
        ABOUT,
    )


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "runs" / "a")
    run.create("name: a\n", "{}")
    return run


def line(round: int) -> dict[str, object]:
    return {
        "arm": "plain", "seed": 0, "round": round, "client": "köln", "role": "val",
        "num_examples": 2, "loss": 0.1 + 0.2, "confusion": [[1]], "bytes_up": 3, "bytes_down": 4,
        "seconds": 0.5,
    }  # fmt: skip


def test_a_run_is_created_once(folder: RunFolder) -> None:
    assert folder.config.read_text() == "name: a\n"
    assert folder.partition.read_text() == "{}"
    with pytest.raises(InputError, match="holds a run already; add --resume"):
        folder.create("name: b\n", "{}")
    assert folder.config.read_text() == "name: a\n"


def test_lines_come_back_as_they_were_appended(folder: RunFolder) -> None:
    assert folder.lines() == []
    folder.append([line(1), line(2)])
    folder.append([])
    folder.append([line(3)])
    assert folder.lines() == [line(1), line(2), line(3)]
    assert len(folder.results.read_bytes().splitlines()) == 3


def test_a_half_written_last_line_is_left_out_at_every_length(folder: RunFolder) -> None:
    folder.append([line(1), line(2)])
    whole = folder.results.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        folder.results.write_bytes(whole[:cut])
        assert folder.lines() == [line(1)]


def test_lines_that_the_disk_does_not_take_leave_no_trace(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.append([line(1)])
    before = folder.results.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"results\.jsonl"):
        folder.append([line(2)])
    assert folder.results.read_bytes() == before


def test_a_run_goes_on_after_a_half_written_line(folder: RunFolder) -> None:
    folder.append([line(1), line(2)])
    folder.results.write_bytes(folder.results.read_bytes()[:-5])
    folder.keep_lines(lambda kept: True)
    folder.append([line(2)])
    assert folder.lines() == [line(1), line(2)]


def test_lines_of_unfinished_rounds_can_be_dropped(folder: RunFolder) -> None:
    folder.append(line(k) for k in range(1, 6))
    folder.keep_lines(lambda kept: kept["round"] <= 3)
    assert folder.lines() == [line(1), line(2), line(3)]


def assert_same(ours: Checkpoint, theirs: Checkpoint) -> None:
    assert (ours.round, ours.description) == (theirs.round, theirs.description)
    assert ours.optimizer.keys() == theirs.optimizer.keys()
    pairs = [(ours.arrays, theirs.arrays)]
    pairs += [(ours.optimizer[moment], theirs.optimizer[moment]) for moment in ours.optimizer]
    for left, right in pairs:
        assert left.keys() == right.keys()
        for name, value in left.items():
            other = right[name]
            assert (value.dtype, value.shape) == (other.dtype, other.shape)
            assert value.tobytes() == other.tobytes()


def test_a_checkpoint_comes_back_bit_for_bit(folder: RunFolder) -> None:
    folder.save(checkpoint(7), keep=2)
    found = folder.latest("plain", 0)
    assert found is not None
    assert_same(found, checkpoint(7))
    path = folder.path / "plain" / "seed_0" / "round_0007.safetensors"
    assert_same(read_checkpoint(path), checkpoint(7))
    assert json.loads(path.with_suffix(".json").read_text())["sha256"] == sha256(path)
    assert {"model/backbone.w", "optimizer/second/backbone.w"} <= load_file(path).keys()


@pytest.mark.parametrize("missing", [(), ("settings",), ("ciphers", "settings")])
def test_a_description_of_an_earlier_version_is_written_as_it_was_read(
    missing: tuple[str, ...], tmp_path: Path
) -> None:
    """vectors/checkpoint_description.json is what a run of plain values wrote."""
    earlier = json.loads(EARLIER.read_text())
    for name in missing:
        del earlier[name]
    hashes = ("schema", "round", "sha256", "about_sha256")
    values = {name: value for name, value in earlier.items() if name not in hashes}
    description = parse_description(values, "earlier")
    path = tmp_path / "round_0003.safetensors"
    write_checkpoint(path, replace(checkpoint(3), description=description))
    written = path.with_suffix(".json").read_text()
    now = json.loads(written)
    assert written == json.dumps(earlier | {each: now[each] for each in hashes}, indent=1)
    assert read_checkpoint(path).description == description
    assert description.protection.key_mode == "per-client"
    assert ("settings" in now) == (not missing)


def test_checkpoints_without_moments_and_of_several_clients(folder: RunFolder) -> None:
    """local-only keeps the weights of every client under its name."""
    several = Checkpoint(1, {"ulm//head.w": np.ones(2), "bonn//head.w": np.zeros(2)}, {}, ABOUT)
    folder.save(several, keep=1)
    found = folder.latest("plain", 0)
    assert found is not None
    assert_same(found, several)
    assert found.has_own_models
    assert not checkpoint(1).has_own_models


def test_arrays_are_kept_whatever_their_order_in_memory(folder: RunFolder) -> None:
    """Transposed and strided views, as some layers have them."""
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    strided = {"a": whole.T, "b": whole[::2, 1::3], "c": np.asfortranarray(whole)}
    folder.save(Checkpoint(1, strided, {"momentum": strided}, ABOUT), keep=1)
    found = folder.latest("plain", 0)
    assert found is not None
    for name, value in strided.items():
        np.testing.assert_array_equal(found.arrays[name], value)
        np.testing.assert_array_equal(found.optimizer["momentum"][name], value)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_start_and_the_newest_checkpoints_of_each_arm_and_seed_are_kept(
    folder: RunFolder, keep: int
) -> None:
    folder.save(replace(checkpoint(1), description=described(seed=1)), keep)
    for round in range(12):
        folder.save(checkpoint(round), keep)
    kept = sorted(path.name for path in (folder.path / "plain" / "seed_0").iterdir())
    newest = range(12 - keep, 12)
    wanted = (0, *newest)  # what training starts from stays
    assert kept == sorted(f"round_{k:04d}.{e}" for k in wanted for e in ("json", "safetensors"))
    other = folder.latest("plain", 1)
    assert other is not None
    assert other.round == 1


@pytest.mark.parametrize("keep", [1, 2])
def test_the_checkpoint_just_written_stays_whatever_lies_after_it(
    folder: RunFolder, keep: int
) -> None:
    """All of an arm's are damaged, so it begins anew, at round 0."""
    for round in (5, 6):
        folder.save(checkpoint(round), keep=2)
    for path in folder.path.rglob("*.safetensors"):
        path.write_bytes(b"damaged")
    assert folder.latest("plain", 0) is None
    folder.save(checkpoint(0), keep)
    found = folder.latest("plain", 0)
    assert found is not None
    assert_same(found, checkpoint(0))
    assert len(list(folder.path.rglob("*.json"))) == 1 + keep  # and partition.json


def test_round_10000_is_after_round_9999(folder: RunFolder) -> None:
    """In the order of their names it is before, and would be the one to go."""
    for round in (9_998, 9_999, 10_000, 10_001):
        folder.save(checkpoint(round), keep=2)
    kept = sorted(path.stem for path in (folder.path / "plain" / "seed_0").glob("*.json"))
    assert kept == ["round_10000", "round_10001"]
    found = folder.latest("plain", 0)
    assert found is not None
    assert found.round == 10_001
    folder.discard_after("plain", 0, 10_000)
    found = folder.latest("plain", 0)
    assert found is not None
    assert found.round == 10_000


def test_checkpoints_after_the_one_to_go_on_from_are_removed_and_said(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    for round in (8, 9, 10):
        folder.save(checkpoint(round), keep=3)
    with caplog.at_level(logging.WARNING):
        folder.discard_after("plain", 0, 9)
    kept = sorted(path.name for path in (folder.path / "plain" / "seed_0").iterdir())
    assert kept == [f"round_{k}.{e}" for k in ("0008", "0009") for e in ("json", "safetensors")]
    (said,) = caplog.messages
    assert "round_0010" in said
    assert "resuming after round 9" in said
    folder.discard_after("plain", 7, 0)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "bit": flip_a_bit,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "gone": lambda path: path.unlink(),
    "cut description": lambda path: path.with_suffix(".json").write_text('{"schema": 1, "ro'),
    "list description": lambda path: path.with_suffix(".json").write_text("[]"),
    "null description": lambda path: path.with_suffix(".json").write_text("null"),
    "empty description": lambda path: path.with_suffix(".json").write_text("{}"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before_and_said(
    folder: RunFolder, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder.save(checkpoint(1), keep=2)
    folder.save(checkpoint(2), keep=2)
    newest = folder.path / "plain" / "seed_0" / "round_0002.safetensors"
    DAMAGE[case](newest)
    with pytest.raises(InputError, match="round_0002"):
        read_checkpoint(newest)
    with caplog.at_level(logging.WARNING):
        found = folder.latest("plain", 0)
    assert found is not None
    assert_same(found, checkpoint(1))
    assert "round_0002" in caplog.text
    assert "using the one before" in caplog.text


def test_a_checkpoint_of_another_schema_says_so(folder: RunFolder) -> None:
    folder.save(checkpoint(1), keep=1)
    path = folder.path / "plain" / "seed_0" / "round_0001.safetensors"
    description = path.with_suffix(".json")
    about = json.loads(description.read_text()) | {"schema": 99}
    description.write_text(json.dumps(about))
    with pytest.raises(InputError, match="expected a checkpoint of schema 1, got 99"):
        read_checkpoint(path)


def test_no_checkpoint_is_none(folder: RunFolder) -> None:
    assert folder.latest("plain", 0) is None


def test_the_partition_tells_how_many_images_a_client_has(folder: RunFolder) -> None:
    assert folder.num_images() == {}
    clients = {"aachen": {"aachen": ["a", "b"], "ulm": ["c"]}, "bonn": {"bonn": ["d"]}}
    folder.partition.write_text(json.dumps({"clients": clients}))
    assert folder.num_images() == {"aachen": 3, "bonn": 1}
    folder.partition.write_text("[" * 100_000)
    assert folder.num_images() == {}
    folder.partition.write_text("[]")
    assert folder.num_images() == {}


def test_a_claim_sweeps_up_what_a_killed_process_left(folder: RunFolder) -> None:
    folder.save(checkpoint(1), keep=2)
    stem = folder.path / "plain" / "seed_0"
    left = [folder.path / ".results.jsonl.12.tmp", stem / ".round_0002.json.12.tmp"]
    left += [stem / "round_0002.safetensors"]
    for path in left:
        path.write_bytes(b"half")
    with folder.lock():
        assert [path for path in left if path.exists()] == []
    found = folder.latest("plain", 0)
    assert found is not None
    assert found.round == 1


def test_releases_are_counted_by_arm_and_seed(folder: RunFolder) -> None:
    counts = [folder.record_release("plain", seed, 1) for seed in (0, 0, 1)]
    assert counts == [1, 2, 1]


def test_lines_that_are_read_are_written_to_the_same_bytes(tmp_path: Path) -> None:
    """Also what this version does not know, and whole numbers where it would write others."""
    costs = '"confusion":[[3,0],[1,2]],"bytes_up":0,"bytes_down":9'
    text = (
        f'{{"arm":"plain","seed":0,"round":1,"client":"köln","role":"val",{costs},"model":"ulm",'
        '"loss":null,"num_examples":2,"seconds":1,"update_norm":0.1,"later":[1,{"a":null}]}\n'
        f'{{"arm":"plain","seed":0,"round":1,"client":null,"role":"round",{costs},"loss":1e-07,'
        '"seconds":0.25,"rejected":["ulm: late"],"num_releases":1,"epsilon":2.5,"delta":1e-05}\n'
    ).replace("ö", "\\u00f6")
    folder = RunFolder(tmp_path)
    folder.results.write_text(text, "utf-8")
    folder.keep_lines(lambda line: True)
    assert folder.results.read_text("utf-8") == text
