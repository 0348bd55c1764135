"""Mutations of a real reply at every level: what a broken or hostile node may answer."""

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.message import make_message
from hypothesis import strategies as st
from safetensors.numpy import save

from fl_ppseg.federation.messages import pack_arrays, unpack_arrays
from fl_ppseg.system.arrays import Arrays

Mutation = Callable[[Message], list[Message]]
"""The messages that come in place of a good one."""

HUGE = 2**62
NAMES = st.text(max_size=12) | st.sampled_from(
    ["head.w", "../x", "\ud800", "\x1b[2J", "a" * 10_000]
)
SCALARS = (
    st.integers(-HUGE, HUGE)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.booleans()
)
NUMBERS = st.integers(-(10**400), 10**400) | st.floats()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def lying_header(shape: tuple[int, ...]) -> bytes:
    """An array of which only the header is there."""
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)  # type: ignore[no-untyped-call]
    return buffer.getvalue() + b"\0" * 16


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.zeros(3))
    return buffer.getvalue()


def safetensors_of(header: object, length: int | None = None) -> bytes:
    """Safetensors with any header, which may say that it is longer than it is."""
    text = json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + b"\0" * 12


def entry(shape: list[int], end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"head.w": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


WHOLE = save({"head.w": np.ones(3, np.float32), "steps": np.array(4)})
PACKED = st.binary(max_size=200) | st.sampled_from(
    [
        WHOLE[:-1],
        WHOLE + b"\0",
        WHOLE[:9],
        safetensors_of({}, 2**63),
        safetensors_of({}, 2**40),
        safetensors_of([]),
        safetensors_of({"head.w": 1}),
        safetensors_of(entry([3], 2**50)),
        safetensors_of(entry([2**62, 4], 12)),
        safetensors_of(entry([-1], 12)),
        safetensors_of(entry([3], 12, "X9")),
    ]
)
"""Bytes in place of the packed arrays."""
BLOBS = (
    st.binary(max_size=200)
    | st.integers(0, 100).map(lambda cut: npy(np.ones(3, np.float32))[:cut])
    | PACKED.map(lambda data: npy(np.frombuffer(data, np.uint8)))
    | st.sampled_from(
        [
            lying_header((2**40,)),
            lying_header((2**62, 2**62)),
            lying_header((-1,)),
            npy(np.array([{"a": 1}], dtype=object)),
            npy(np.zeros(3, dtype="U100")),
            npy(np.zeros(3, dtype=[("a", "f4"), ("b", "i8")])),
            npz(),
        ]
    )
)
"""Bytes in place of numpy's form of them."""
BAD_ARRAYS = BLOBS.map(lambda data: Array("uint8", (3,), "numpy.ndarray", data)) | st.just(
    Array("uint8", (3,), "pickle", b"cos\nsystem\n")
)
WRONG_VALUES = st.sampled_from(
    [
        np.array([1, np.nan, 1], np.float32),
        np.array([1, np.inf, 1], np.float32),
        np.ones(3, np.float64),
        np.ones(3, bool),
        np.ones((3, 1), np.float32),
        np.ones(0, np.float32),
        np.float32(1).reshape(()),
    ]
)
"""Arrays that are not of the model's form."""


def content(edit: Callable[[RecordDict], object]) -> Mutation:
    """A mutation of what a message holds."""

    def mutate(message: Message) -> list[Message]:
        edit(message.content)
        return [message]

    return mutate


def put(record: str, name: str, value: Any) -> Mutation:
    return content(lambda records: records[record].__setitem__(name, value))


def drop(record: str, name: str) -> Mutation:
    return content(lambda records: records[record].__delitem__(name))


def repacked(edit: Callable[[Arrays], Arrays]) -> Mutation:
    """A mutation of the arrays, well packed again."""

    def change(records: RecordDict) -> None:
        records["arrays"] = pack_arrays(edit(unpack_arrays(records.array_records["arrays"])))

    return content(change)


def metadata(**changes: Any) -> Mutation:
    def mutate(message: Message) -> list[Message]:
        for name, value in changes.items():
            message.metadata.__dict__[f"_{name}"] = value
        return [message]

    return mutate


def failed(code: int, reason: str | None) -> Mutation:
    return lambda message: [make_message(message.metadata, error=Error(code, reason))]


def emptied(message: Message) -> list[Message]:
    message.__dict__["_content"] = None
    return [message]


RECORDS = st.sampled_from(["settings", "figures", "arrays"])
ANY_RECORD = st.sampled_from([ConfigRecord, MetricRecord, ArrayRecord])


@st.composite
def mutations(draw: st.DrawFn) -> Mutation:
    """One thing that makes a good training reply of client bochum a bad one."""
    kinds = (message_mutations(), record_mutations(), setting_mutations(), figure_mutations())
    return draw(st.one_of(*kinds, array_mutations()))


def message_mutations() -> st.SearchStrategy[Mutation]:
    return st.one_of(
        st.builds(failed, st.integers(-HUGE, HUGE), st.none() | st.text(max_size=2000)),
        st.just(emptied),
        st.builds(lambda name: metadata(reply_to_message_id=name), st.text(max_size=40)),
        st.builds(lambda node: metadata(src_node_id=node), st.integers(100, HUGE)),
    )


def record_mutations() -> st.SearchStrategy[Mutation]:
    return st.one_of(
        st.builds(lambda name: content(lambda records: records.__delitem__(name)), RECORDS),
        st.builds(
            lambda name, kind: content(lambda records: records.__setitem__(name, kind())),
            RECORDS,
            ANY_RECORD,
        ),
        st.builds(
            lambda name, kind: content(lambda records: records.__setitem__(f"x{name}", kind())),
            NAMES,
            ANY_RECORD,
        ),
        st.just(content(lambda records: records.clear())),
    )


def setting_mutations() -> st.SearchStrategy[Mutation]:
    names = st.sampled_from(["run_id", "round", "client"])
    return st.one_of(
        st.builds(lambda name: drop("settings", name), names),
        st.builds(lambda name, value: put("settings", f"x{name}", value), NAMES, SCALARS),
        st.builds(lambda name, value: put("settings", name, [value]), names, st.text()),
        st.builds(lambda value: put("settings", "round", value), SCALARS.filter(lambda x: x != 3)),
        st.builds(lambda value: put("settings", "client", value), SCALARS),
        st.builds(lambda value: put("settings", "run_id", value), SCALARS),
    )


def figure_mutations() -> st.SearchStrategy[Mutation]:
    names = st.sampled_from(["num_examples", "loss", "seconds", "confusion"])
    negative = st.integers(-(10**400), 0)
    huge = st.integers(2**48 + 1, 10**400)
    beyond = st.floats().filter(lambda x: not abs(x) <= 1e12)
    return st.one_of(
        st.builds(lambda name: drop("figures", name), names),
        st.builds(lambda name, value: put("figures", f"x{name}", value), NAMES, NUMBERS),
        st.builds(lambda value: put("figures", "num_examples", value), negative | huge),
        st.builds(lambda value: put("figures", "num_examples", value), st.floats()),
        st.builds(lambda value: put("figures", "loss", [value]), beyond),
        st.builds(lambda value: put("figures", "loss", value), st.integers() | st.floats()),
        st.just(put("figures", "loss", [0.5, 0.5])),
        st.builds(lambda value: put("figures", "seconds", value), beyond),
        st.builds(
            lambda value: put("figures", "confusion", value),
            st.lists(st.integers(-(10**20), -1), min_size=1)
            | st.lists(huge, min_size=4, max_size=4)
            | st.lists(st.floats(), min_size=1)
            | st.lists(st.integers(0, 9), min_size=2, max_size=3)
            | st.lists(st.integers(0, 9), min_size=9, max_size=9)
            | st.integers(),
        ),
    )


def array_mutations() -> st.SearchStrategy[Mutation]:
    encodable = NAMES.filter(lambda name: name.isprintable() and name.encode("utf-8", "ignore"))
    return st.one_of(
        st.just(repacked(lambda arrays: {"steps": arrays["steps"]})),
        st.just(repacked(lambda arrays: {})),
        st.builds(
            lambda name: repacked(lambda arrays: arrays | {f"x{name}": np.ones(3)}), encodable
        ),
        st.builds(lambda value: repacked(lambda arrays: arrays | {"head.w": value}), WRONG_VALUES),
        st.just(drop("arrays", "safetensors")),
        st.builds(lambda name: put("arrays", f"x{name}", Array(np.ones(3))), NAMES),
        st.builds(lambda value: put("arrays", "safetensors", value), BAD_ARRAYS),
    )
