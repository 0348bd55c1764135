"""The door to the network: what goes through it, and that nothing else does."""

import io
import json
import pickle
import tracemalloc
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import must_fail
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict  # type: ignore[attr-defined]
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_ppseg.codecs.tensors import Layout
from fl_ppseg.config.sections import ModelConfig, TrainingConfig
from fl_ppseg.federation.message_content import Description, Reply, Request
from fl_ppseg.federation.messages import (
    MessageError,
    pack_arrays,
    pack_description,
    pack_reply,
    pack_request,
    packed_size,
    unpack_arrays,
    unpack_description,
    unpack_reply,
    unpack_request,
)

ARRAYS = {
    "backbone.w": np.array([[0.1, -0.0], [3e-45, 3.4e38]], np.float32),
    "norm.num_batches_tracked": np.array(7),
}
NAMES = frozenset(ARRAYS)
LAYOUT = [Layout(value.shape, value.dtype) for value in ARRAYS.values()]
REQUEST = Request(
    task="train",
    run_id="run",
    round=3,
    num_rounds=12,
    arm="per-client",
    seed=1,
    embedding="uploaded",
    num_classes=2,
    model=ModelConfig(depth=2),
    training=TrainingConfig(learning_rate=1e-4),
    arrays=ARRAYS,
)
REPLY = Reply(
    run_id="run",
    round=3,
    client="ulm",
    num_examples=9,
    loss=0.1,
    seconds=1.5,
    confusion=np.array([[3, 1], [0, 2**40]]),
    arrays=ARRAYS,
)
DESCRIPTION = Description("run", "ulm", "val")

Unpack = Callable[[RecordDict], object]
MESSAGES: dict[str, tuple[Callable[[], RecordDict], Unpack]] = {
    "request": (lambda: pack_request(REQUEST), unpack_request),
    "reply": (lambda: pack_reply(REPLY, NAMES), lambda content: unpack_reply(content, NAMES)),
    "description": (lambda: pack_description(DESCRIPTION), unpack_description),
}


def assert_same(ours: object, theirs: object) -> None:
    """Field by field, arrays bit for bit."""
    assert type(ours) is type(theirs)
    for field in fields(ours):  # type: ignore[arg-type]
        left, right = getattr(ours, field.name), getattr(theirs, field.name)
        if field.name == "arrays":
            assert left.keys() == right.keys()
            pairs = [(left[name], right[name]) for name in left]
        elif isinstance(left, np.ndarray):
            pairs = [(left, right)]
        else:
            assert left == right
            assert type(left) is type(right)
            continue
        for a, b in pairs:
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def over_the_wire(content: RecordDict) -> RecordDict:
    """Through Flower's own protobuf, as bytes."""
    received = ProtoRecordDict()
    received.ParseFromString(recorddict_to_proto(content).SerializeToString())
    return recorddict_from_proto(received)


@pytest.mark.parametrize("way", [lambda content: content, over_the_wire])
def test_round_trips(way: Callable[[RecordDict], RecordDict]) -> None:
    assert_same(unpack_request(way(pack_request(REQUEST))), REQUEST)
    assert_same(unpack_reply(way(pack_reply(REPLY, NAMES)), NAMES), REPLY)
    assert_same(unpack_description(way(pack_description(DESCRIPTION))), DESCRIPTION)
    empty = replace(REPLY, confusion=None, loss=None, arrays={})
    assert_same(unpack_reply(way(pack_reply(empty, ())), ()), empty)


def test_a_reply_holds_only_what_the_design_allows() -> None:
    content = pack_reply(REPLY, NAMES)
    assert {name: sorted(record) for name, record in content.items()} == {
        "settings": ["client", "round", "run_id", "schema"],
        "figures": ["confusion", "loss", "num_examples", "seconds"],
        "arrays": ["safetensors"],
    }
    assert unpack_arrays(content.array_records["arrays"]).keys() == NAMES


def test_array_names_outside_the_allow_list_neither_leave_nor_enter() -> None:
    with pytest.raises(MessageError, match=r"not allowed: norm\.num_batches_tracked"):
        pack_reply(REPLY, {"backbone.w"})
    sent = pack_reply(REPLY, NAMES)
    with pytest.raises(MessageError, match=r"not allowed: norm\.num_batches_tracked"):
        unpack_reply(sent, {"backbone.w"})
    with pytest.raises(MessageError, match="1 arrays are missing"):
        unpack_reply(sent, NAMES | {"head.w"})


def reply_with(record: str, entry: str, value: object) -> RecordDict:
    content = pack_reply(REPLY, NAMES)
    content[record][entry] = value  # type: ignore[index, assignment]
    return content


BAD_FIGURES: dict[str, tuple[str, Any, str]] = {
    "NaN loss": ("loss", [float("nan")], "loss is not finite"),
    "infinite seconds": ("seconds", float("inf"), "seconds is not finite"),
    "loss in cents": ("loss", [3], "loss is not a float"),
    "two losses": ("loss", [0.1, 0.2], "loss is not a list of at most one value"),
    "a bare loss": ("loss", 0.1, "loss is not a list of at most one value"),
    "a loss of 1e300": ("loss", [1e300], "loss is not between"),
    "a loss below 0": ("loss", [-2.0], "loss is not between"),
    "time back": ("seconds", -1.0, "seconds is not between"),
    "all of time": ("seconds", 1e9, "seconds is not between"),
    "negative": ("num_examples", -1, "num_examples is negative"),
    "all images": ("num_examples", 2**48 - 2, "num_examples is not between 0 and 16777216"),
    "fractional": ("num_examples", 2.5, "num_examples is not an int"),
    "not square": ("confusion", [1, 2, 3], "not a square matrix"),
    "negative count": ("confusion", [1, 2, -3, 4], "confusion: expected counts from 0"),
    "fractional counts": ("confusion", [1.5, 2.5, 3.5, 4.5], "confusion: expected counts from 0"),
    "NaN counts": ("confusion", [1.0, 2.0, float("nan"), 4.0], "confusion: expected counts from 0"),
    "counts beyond int64": ("confusion", [2**70, 0, 0, 0], "confusion: expected counts from 0"),
    "a million classes": ("confusion", [0] * 256**2, "65536 entries, at most 65025"),
    "a number": ("confusion", 4, "confusion is not a list"),
    "unknown": ("key", 4, "expected entries"),
}


@pytest.mark.parametrize("case", BAD_FIGURES)
def test_figures_of_another_form_are_refused(case: str) -> None:
    entry, value, why = BAD_FIGURES[case]
    with pytest.raises(MessageError, match=why):
        unpack_reply(reply_with("figures", entry, value), NAMES)


def test_settings_of_another_form_are_refused() -> None:
    for entry, value, why in (
        ("task", "format the disk", "unknown task"),
        ("round", 3.0, "round is not an int"),
        ("round", -5, "round is negative"),
        ("round", 10**7, "round is not between 0 and 1000000"),
        ("num_rounds", 0, "num_rounds is not between 1"),
        ("seed", -1, "seed is negative"),
        ("num_classes", 1024, "num_classes is not between 1 and 255"),
        ("arm", "../../escaped", "arm must not hold a slash"),
        ("run_id", "", "run_id has 0 characters"),
        ("embedding", "stolen", "unknown embedding 'stolen'"),
        ("model", "[" * 60_000, "model or training settings"),
        ("model", "x" * 70_000, "at most 65536 are allowed"),
        ("model", '{"backbone": 3}', "model or training settings"),
        ("training", "not JSON", "model or training settings"),
        ("training", '{"steal": true}', "model or training settings"),
    ):
        content = pack_request(REQUEST)
        content["settings"][entry] = value  # type: ignore[index, assignment]
        with pytest.raises(MessageError, match=why):
            unpack_request(content)
    content = pack_description(DESCRIPTION)
    content["settings"]["role"] = "thief"  # type: ignore[index, assignment]
    with pytest.raises(MessageError, match="unknown role 'thief'"):
        unpack_description(content)


def raw(data: bytes, stype: str = "numpy.ndarray") -> Array:
    return Array("float32", (2, 2), stype, data)


def saved(value: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.zeros(2))
    return file.getvalue()


BAD_ARRAYS = {
    "nothing": raw(b""),
    "garbage": raw(b"garbage"),
    "cut": raw(saved(np.zeros(9))[:-3]),
    "open header": raw(saved(np.zeros(9)).replace(b"}", b"(")),
    "pickle": raw(pickle.dumps([1])),
    "objects": raw(saved(np.array([{}], dtype=object))),
    "another form": raw(saved(np.zeros(9)), "torch"),
    "archive": raw(zipped()),
    "no safetensors": raw(saved(np.zeros(9, np.uint8))),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bytes_that_are_no_array_are_refused(case: str) -> None:
    with pytest.raises(MessageError, match="safetensors holds no arrays"):
        unpack_arrays(ArrayRecord({"safetensors": BAD_ARRAYS[case]}))
    with pytest.raises(MessageError, match="holds no arrays"):
        unpack_reply(reply_with("arrays", "safetensors", BAD_ARRAYS[case]), NAMES)


def test_arrays_are_looked_at_by_their_size_before_they_are_unpacked() -> None:
    """600 MB in a reply took 2.6 GB."""
    sent = pack_reply(REPLY, NAMES)
    assert_same(unpack_reply(sent, NAMES, packed_size(LAYOUT)), REPLY)
    large = pack_arrays({"backbone.w": np.zeros(2**24, np.float32)})
    content = reply_with("arrays", "safetensors", large["safetensors"])
    tracemalloc.start()
    with pytest.raises(MessageError, match=r"expected arrays of at most \d+ bytes, got 671\d{5}"):
        unpack_reply(content, NAMES, packed_size(LAYOUT))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_an_introduction_holds_no_arrays() -> None:
    content = pack_description(DESCRIPTION)
    content["arrays"] = pack_arrays({"w": np.zeros(2)})
    with pytest.raises(MessageError, match="expected an introduction without arrays"):
        unpack_description(content)


def test_what_is_beyond_its_bounds_does_not_leave_either() -> None:
    for change in ({"num_examples": 2**30}, {"loss": float("nan")}, {"client": "a/b"}):
        with pytest.raises(MessageError):
            pack_reply(replace(REPLY, **change), NAMES)  # type: ignore[arg-type]
    with pytest.raises(MessageError):
        pack_request(replace(REQUEST, round=-1))


@must_fail.of("request")
def test_requests_that_must_fail(vector: must_fail.Vector) -> None:
    refuse(vector, unpack_request)


@must_fail.of("reply")
def test_replies_that_must_fail(vector: must_fail.Vector) -> None:
    refuse(vector, lambda content: unpack_reply(content, {"head.w"}, 2**16))


@must_fail.of("description")
def test_descriptions_that_must_fail(vector: must_fail.Vector) -> None:
    refuse(vector, unpack_description)


@pytest.mark.parametrize("kind", MESSAGES)
def test_what_the_vectors_differ_from_is_taken(kind: str) -> None:
    content = (must_fail.FOLDER.parent / "control" / f"{kind}.json").read_bytes()
    unpack = {
        "request": unpack_request,
        "reply": lambda content: unpack_reply(content, {"head.w"}, 2**16),
        "description": unpack_description,
    }[kind]
    unpack(records_of(content))


def refuse(vector: must_fail.Vector, unpack: Unpack) -> None:
    with pytest.raises(MessageError) as refused:
        unpack(records_of(vector.content))
    assert vector.error in str(refused.value)
    assert len(str(refused.value)) < 3000


def records_of(content: bytes) -> RecordDict:
    """From JSON: {"settings": {}, "figures": {}, "arrays": hex of the safetensors}."""
    values = json.loads(content)
    kinds = {"settings": ConfigRecord, "figures": MetricRecord}
    records = {name: kinds[name](value) for name, value in values.items() if name in kinds}
    if "arrays" in values:
        data = bytes.fromhex(values["arrays"])
        packed = ArrayRecord({"safetensors": Array(np.frombuffer(data, np.uint8))})
        records["arrays"] = packed if data else ArrayRecord()
    return RecordDict(records)


def test_arrays_beside_the_packed_ones_are_refused() -> None:
    with pytest.raises(MessageError, match="expected an array safetensors"):
        unpack_reply(reply_with("arrays", "backbone.w", Array(np.zeros(2))), NAMES)


def test_a_model_travels_in_one_array() -> None:
    """Flower asks for each array in requests of its own."""
    assert len(pack_request(REQUEST).array_records["arrays"]) == 1


def as_another_kind(content: RecordDict, name: str) -> None:
    kinds = [ConfigRecord(), MetricRecord(), ArrayRecord()]
    content[name] = next(kind for kind in kinds if not isinstance(content[name], type(kind)))


def spoil(content: RecordDict, records: list[str], draw: Callable[..., Any]) -> None:
    """Drop, add or retype one entry or record; the message is then never of the agreed form."""
    name = draw(st.sampled_from(records))
    record: Any = content[name]
    how = draw(st.sampled_from(["drop", "drop record", "kind", "add record", "add", "retype"]))
    entries = sorted(record)
    if how == "drop record":
        del content[name]
    elif how == "add record":
        content[draw(st.text(max_size=5))] = MetricRecord()
    elif how == "add" or (how in {"drop", "retype"} and not entries):
        record["?" + draw(st.text(max_size=5))] = raw(b"x") if name == "arrays" else 1
    elif how == "drop":
        del record[draw(st.sampled_from(entries))]
    elif how == "retype":
        other = {"settings": b"x", "figures": [0.5, 0.5], "arrays": raw(draw(st.binary()))}
        record[draw(st.sampled_from(entries))] = other[name]
    else:
        as_another_kind(content, name)


@pytest.mark.parametrize("kind", MESSAGES)
@settings(max_examples=60)
@given(data=st.data())
def test_a_malformed_message_raises_a_message_error_and_nothing_else(
    kind: str, data: st.DataObject
) -> None:
    pack, unpack = MESSAGES[kind]
    content = pack()
    # A request's arrays have no allow-list: the model's own loading is strict about names.
    records = ["settings", "figures"] + ["arrays"] * (kind == "reply")
    spoil(content, records, data.draw)
    with pytest.raises(MessageError):
        unpack(content)


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_of_another_kind_is_refused(kind: str) -> None:
    for other, (pack, _) in MESSAGES.items():
        if other != kind:
            with pytest.raises(MessageError):
                MESSAGES[kind][1](pack())


def test_an_empty_message_is_refused() -> None:
    for _, unpack in MESSAGES.values():
        with pytest.raises(MessageError, match="expected records"):
            unpack(RecordDict())


def test_weights_stay_out_of_what_is_printed() -> None:
    for message in (REQUEST, replace(REPLY, confusion=None)):
        assert "array" not in repr(message)
