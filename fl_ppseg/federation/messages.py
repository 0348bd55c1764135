"""The only module that builds and reads messages, from an allow-list.

A request carries run id, round, arm id, seed, model and local-training settings and arrays; a reply
carries run id, round, client, num_examples, loss, confusion counts, seconds and arrays; either the
version of its entries' names. Nothing else: unknown, missing, ill-typed or unbounded entries raise
on both sides, and arrays are looked at by their size before they are unpacked. This module reaches
no key and no image.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, Final, get_args

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from safetensors.numpy import save

from fl_ppseg.codecs.tensors import Layout, num_bytes
from fl_ppseg.config.sections import ModelConfig, TrainingConfig
from fl_ppseg.federation.byte_array import byte_array, content_of
from fl_ppseg.federation.message_content import Description, Reply, Request, SumPart
from fl_ppseg.federation.message_fields import (
    DESCRIPTION,
    MAX_ARRAY_BYTES,
    REPLY_FIGURES,
    REPLY_SETTINGS,
    REQUEST,
    SUM_REPLY,
    SUM_REQUEST,
    Field,
    FieldError,
    checked,
)
from fl_ppseg.federation.roles import SumStep
from fl_ppseg.setr.tensor_file import tensors_in
from fl_ppseg.system.arrays import Arrays

_SETTINGS, _FIGURES, _ARRAYS = "settings", "figures", "arrays"
_SUM = "sum"
"""The record of secure aggregation, in its messages alone."""
_PACKED = "safetensors"
MAX_ARRAYS: Final = 10_000
MAX_TENSOR_NAME: Final = 200
HEADER_BYTES: Final = 1_000
"""Of safetensors and numpy, a tensor: name, dtype, shape and place."""


SCHEMA: Final = 2
"""Version of the entries' names. Messages of before say none, and call a client a city."""
REFUSED, FAILED = 401, 500
"""Codes of a node's error replies: it will not, or it could not."""


class MessageError(Exception):
    """A message that is not of the agreed form."""


def pack_request(request: Request, record: ArrayRecord | None = None) -> RecordDict:
    """A request as Flower records.

    Args:
        request: The request.
        record: Its arrays, where `pack_arrays` has packed them already.
    """
    settings = {
        name: getattr(request, name) for name in REQUEST if name not in {"model", "training"}
    }
    settings["model"] = request.model.model_dump_json()
    settings["training"] = request.training.model_dump_json()
    _typed(settings, REQUEST)
    arrays = ArrayRecord()  # of its own: what is sent stays as it is when `record` changes
    arrays.update(pack_arrays(request.arrays) if record is None else record)
    packed = _records(settings, {}, arrays)
    return packed if request.sum is None else _with_sum(packed, vars(request.sum), SUM_REQUEST)


def unpack_request(content: RecordDict) -> Request:
    """The request in a message.

    Raises:
        MessageError: If anything is missing, unknown, of another type or beyond its bounds.
    """
    content, part = _split_sum(content, SUM_REQUEST)
    settings, _, arrays = _read(content, REQUEST, {}, MAX_ARRAY_BYTES)
    if settings["task"] != "train" and (settings["task"] in get_args(SumStep)) != bool(part):
        raise MessageError("a step of secure aggregation has a record sum, and no other task")
    try:
        settings["model"] = ModelConfig.model_validate_json(str(settings["model"]))
        settings["training"] = TrainingConfig.model_validate_json(str(settings["training"]))
    except (ValueError, RecursionError):
        raise MessageError("invalid model or training settings") from None
    return Request(arrays=arrays, sum=SumPart(**part) if part else None, **settings)


def pack_reply(reply: Reply, allowed: Collection[str]) -> RecordDict:
    """A reply as Flower records.

    Args:
        reply: The reply.
        allowed: Names of the arrays that may leave this node.

    Raises:
        MessageError: If the reply holds an array of another name, or a figure beyond its bounds.
    """
    _check_names(reply.arrays, allowed)
    confusion = [] if reply.confusion is None else [int(n) for n in reply.confusion.ravel()]
    figures: dict[str, Any] = {
        "num_examples": reply.num_examples,
        "loss": [] if reply.loss is None else [reply.loss],
        "seconds": reply.seconds,
        "confusion": confusion,
    }
    settings = {name: getattr(reply, name) for name in REPLY_SETTINGS}
    _typed(settings, REPLY_SETTINGS)
    _typed(figures, REPLY_FIGURES)
    packed = _records(settings, figures, pack_arrays(reply.arrays))
    return packed if reply.sum is None else _with_sum(packed, {"content": reply.sum}, SUM_REPLY)


def unpack_reply(
    content: RecordDict, allowed: Collection[str], max_bytes: int = MAX_ARRAY_BYTES
) -> Reply:
    """The reply in a message, its arrays exactly those of `allowed`.

    Args:
        content: Of the message.
        allowed: Names of its arrays.
        max_bytes: Of the arrays as they are packed: `packed_size` of those that are expected.

    Raises:
        MessageError: If anything is missing, unknown, not finite, of another type or beyond its
            bounds.
    """
    content, part = _split_sum(content, SUM_REPLY)
    settings, figures, arrays = _read(content, REPLY_SETTINGS, REPLY_FIGURES, max_bytes)
    _check_names(arrays, allowed)
    if len(arrays) != len(allowed):
        raise MessageError(f"{len(allowed) - len(arrays)} arrays are missing")
    figures["confusion"] = _square(figures["confusion"])
    return Reply(arrays=arrays, sum=part.get("content"), **settings, **figures)


def pack_description(description: Description) -> RecordDict:
    """A node's introduction as Flower records.

    Raises:
        MessageError: If an entry is beyond its bounds.
    """
    settings = {name: getattr(description, name) for name in DESCRIPTION}
    _typed(settings, DESCRIPTION)
    return _records(settings, {}, ArrayRecord())


def unpack_description(content: RecordDict) -> Description:
    """A node's introduction.

    Raises:
        MessageError: If anything is missing, unknown, of another type or beyond its bounds.
    """
    settings, _, arrays = _read(content, DESCRIPTION, {}, HEADER_BYTES)
    if arrays:
        raise MessageError("expected an introduction without arrays")
    return Description(**settings)


def packed_size(layouts: Collection[Layout]) -> int:
    """Bytes that arrays of these layouts take at most when they are packed."""
    return num_bytes(layouts) + HEADER_BYTES * (len(layouts) + 1)


def pack_arrays(arrays: Arrays) -> ArrayRecord:
    """Arrays in Flower's form: all in one, as safetensors.

    Flower asks for every array of a record in two requests of its own; a model has a hundred.
    """
    if not arrays:
        return ArrayRecord()
    in_order = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    return ArrayRecord({_PACKED: byte_array(save(in_order))})


def pack_in_place(arrays: Arrays) -> tuple[ArrayRecord, Arrays]:
    """Arrays in Flower's form, and the same arrays, read-only, in its memory."""
    record = pack_arrays(arrays)
    return record, tensors_in(content_of(record[_PACKED]), _PACKED) if arrays else {}


def unpack_arrays(record: ArrayRecord, max_bytes: int = MAX_ARRAY_BYTES) -> Arrays:
    """Arrays out of Flower's form: read-only, in the memory of what came.

    Raises:
        MessageError: If they are not safetensors, or larger or more than allowed.
    """
    if not record:
        return {}
    if set(record) != {_PACKED}:
        got = sorted(str(name)[:MAX_TENSOR_NAME] for name in list(record)[:20])
        raise MessageError(f"expected an array {_PACKED}, got {got}")
    packed = record[_PACKED]
    if (size := len(packed.data)) > max_bytes:  # before numpy and safetensors copy it
        raise MessageError(f"expected arrays of at most {max_bytes} bytes, got {size}")
    try:
        found = tensors_in(content_of(packed), _PACKED, HEADER_BYTES * MAX_ARRAYS)
    except Exception as error:  # numpy raises many kinds for other bytes
        raise MessageError(f"{_PACKED} holds no arrays ({type(error).__name__})") from None
    if len(found) > MAX_ARRAYS or any(len(name) > MAX_TENSOR_NAME for name in found):
        raise MessageError(f"more than {MAX_ARRAYS} arrays, or names of {MAX_TENSOR_NAME} letters")
    return found


def _records(
    settings: Mapping[str, Any], figures: Mapping[str, Any], arrays: ArrayRecord
) -> RecordDict:
    return RecordDict(
        {
            _SETTINGS: ConfigRecord({"schema": SCHEMA, **settings}),
            _FIGURES: MetricRecord(dict(figures)),
            _ARRAYS: arrays,
        }
    )


def _with_sum(
    content: RecordDict, values: Mapping[str, Any], expected: Mapping[str, Field]
) -> RecordDict:
    content[_SUM] = ConfigRecord(_typed(values, expected))
    return content


def _split_sum(
    content: RecordDict, expected: Mapping[str, Field]
) -> tuple[RecordDict, dict[str, Any]]:
    """The records of every message, and the entries of secure aggregation's, if there is one."""
    if _SUM not in content:
        return content, {}
    if not isinstance(content[_SUM], ConfigRecord):
        raise MessageError("a record of another kind than its name says")
    rest = RecordDict({name: record for name, record in content.items() if name != _SUM})
    return rest, _typed(content.config_records[_SUM], expected)


def _read(
    content: RecordDict,
    settings: Mapping[str, Field],
    figures: Mapping[str, Field],
    max_bytes: int,
) -> tuple[dict[str, Any], dict[str, Any], Arrays]:
    if set(content) != {_SETTINGS, _FIGURES, _ARRAYS}:
        got = sorted(str(name)[:MAX_TENSOR_NAME] for name in list(content)[:20])
        raise MessageError(f"expected records settings, figures, arrays, got {got}")
    kinds = (ConfigRecord, MetricRecord, ArrayRecord)
    records = content[_SETTINGS], content[_FIGURES], content[_ARRAYS]
    if not all(isinstance(record, kind) for record, kind in zip(records, kinds, strict=True)):
        raise MessageError("a record of another kind than its name says")
    words = dict(content.config_records[_SETTINGS])
    schema = words.pop("schema", 1)
    if type(schema) is not int or schema != SCHEMA:
        raise MessageError(
            f"expected a message of version {SCHEMA}, got {ascii(schema)[:20]}; install the same "
            "version of fl_ppseg on coordinator and nodes"
        )
    return (
        _typed(words, settings),
        _typed(content.metric_records[_FIGURES], figures),
        unpack_arrays(content.array_records[_ARRAYS], max_bytes),
    )


def _typed(record: Mapping[str, object], expected: Mapping[str, Field]) -> dict[str, Any]:
    try:
        return checked(record, expected)
    except FieldError as error:
        raise MessageError(str(error)) from None


def _check_names(arrays: Arrays, allowed: Collection[str]) -> None:
    unknown = sorted(set(arrays) - set(allowed))
    if unknown:
        shown = ", ".join(name[:MAX_TENSOR_NAME] for name in unknown[:20])
        raise MessageError(f"arrays that are not allowed: {shown}")


def _square(counts: list[int]) -> np.ndarray | None:
    side = math.isqrt(len(counts))
    if side * side != len(counts):
        raise MessageError("confusion counts are not a square matrix")
    return np.array(counts, dtype=np.int64).reshape(side, side) if side else None
