"""The one door to the network: builds and reads every message, from an allow-list.

A request carries run id, round, arm id, seed, model and local-training settings and arrays; a reply
carries run id, round, city, num_examples, loss, confusion counts, seconds and arrays. Nothing else:
unknown, missing or ill-typed entries raise on both sides. This module reaches no key and no image.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from safetensors.numpy import load, save

from fl_ppseg.config import ModelConfig, TrainingConfig

Arrays = dict[str, np.ndarray]
Task = Literal["describe", "train", "evaluate"]
Role = Literal["train", "val"]

_SETTINGS, _FIGURES, _ARRAYS = "settings", "figures", "arrays"
_PACKED = "safetensors"
_REQUEST = {
    "task": str,
    "run": str,
    "run_id": str,
    "round": int,
    "num_rounds": int,
    "arm": str,
    "seed": int,
    "embedding": str,
    "num_classes": int,
    "model": str,
    "training": str,
}
_REPLY_SETTINGS = {"run_id": str, "round": int, "city": str}
_REPLY_FIGURES = {"num_examples": int, "loss": float, "seconds": float, "confusion": list}
_DESCRIPTION = {"run_id": str, "city": str, "role": str}


REFUSED, FAILED = 401, 500
"""Codes of a node's error replies: it will not, or it could not."""


class MessageError(Exception):
    """A message that is not of the agreed form."""


@dataclass(frozen=True)
class Request:
    """What the coordinator asks of a node."""

    task: Task
    run_id: str
    round: int
    """Round from 1."""
    num_rounds: int
    arm: str
    seed: int
    embedding: str
    """How the coordinator expects the patch embedding to be treated; the owner's policy decides."""
    num_classes: int
    model: ModelConfig
    training: TrainingConfig
    arrays: Arrays = field(default_factory=dict, repr=False)
    run: str = ""
    """Identity of the prepared run whose nodes are asked, where they were prepared for one run."""


@dataclass(frozen=True)
class Reply:
    """What a node answers: weights and counts, never images, labels or keys."""

    run_id: str
    round: int
    city: str
    num_examples: int
    """Images that the local update or the evaluation used."""
    loss: float
    """Mean loss a pixel."""
    seconds: float
    """Compute seconds on the node."""
    confusion: np.ndarray | None = None
    """(num_classes, num_classes) int64, rows are the truth; None after training."""
    arrays: Arrays = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Description:
    """How a node introduces itself."""

    run_id: str
    city: str
    role: Role


def pack_request(request: Request) -> RecordDict:
    """A request as Flower records."""
    settings = {
        name: getattr(request, name) for name in _REQUEST if name not in {"model", "training"}
    }
    settings["model"] = request.model.model_dump_json()
    settings["training"] = request.training.model_dump_json()
    return _records(settings, {}, request.arrays)


def unpack_request(content: RecordDict) -> Request:
    """The request in a message.

    Raises:
        MessageError: If anything is missing, unknown or of another type.
    """
    settings, _, arrays = _read(content, _REQUEST, {})
    if settings["task"] not in ("describe", "train", "evaluate"):
        raise MessageError(f"unknown task {settings['task']!r}")
    try:
        settings["model"] = ModelConfig.model_validate_json(str(settings["model"]))
        settings["training"] = TrainingConfig.model_validate_json(str(settings["training"]))
    except ValueError:
        raise MessageError("model or training settings of another form") from None
    return Request(arrays=arrays, **settings)  # type: ignore[arg-type]


def pack_reply(reply: Reply, allowed: Collection[str]) -> RecordDict:
    """A reply as Flower records.

    Args:
        reply: The reply.
        allowed: Names of the arrays that may leave this node.

    Raises:
        MessageError: If the reply holds an array of another name.
    """
    _check_names(reply.arrays, allowed)
    confusion = [] if reply.confusion is None else [int(n) for n in reply.confusion.ravel()]
    figures: dict[str, Any] = {
        "num_examples": reply.num_examples,
        "loss": reply.loss,
        "seconds": reply.seconds,
        "confusion": confusion,
    }
    settings = {name: getattr(reply, name) for name in _REPLY_SETTINGS}
    return _records(settings, figures, reply.arrays)


def unpack_reply(content: RecordDict, allowed: Collection[str]) -> Reply:
    """The reply in a message, its arrays exactly those of `allowed`.

    Raises:
        MessageError: If anything is missing, unknown, not finite or of another type.
    """
    settings, figures, arrays = _read(content, _REPLY_SETTINGS, _REPLY_FIGURES)
    _check_names(arrays, allowed)
    if len(arrays) != len(allowed):
        raise MessageError(f"{len(allowed) - len(arrays)} arrays are missing")
    if figures["num_examples"] < 0:  # type: ignore[operator]
        raise MessageError("num_examples is negative")
    figures["confusion"] = _square(figures["confusion"])
    return Reply(arrays=arrays, **settings, **figures)  # type: ignore[arg-type]


def pack_description(description: Description) -> RecordDict:
    """A node's introduction as Flower records."""
    return _records({name: getattr(description, name) for name in _DESCRIPTION}, {}, {})


def unpack_description(content: RecordDict) -> Description:
    """A node's introduction.

    Raises:
        MessageError: If anything is missing, unknown or of another type.
    """
    settings, _, _ = _read(content, _DESCRIPTION, {})
    if settings["role"] not in ("train", "val"):
        raise MessageError(f"unknown role {settings['role']!r}")
    return Description(**settings)  # type: ignore[arg-type]


def pack_arrays(arrays: Arrays) -> ArrayRecord:
    """Arrays in Flower's form: all in one, as safetensors.

    Flower asks for every array of a record in two requests of its own; a model has a hundred.
    """
    if not arrays:
        return ArrayRecord()
    in_order = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    return ArrayRecord({_PACKED: Array(np.frombuffer(save(in_order), np.uint8))})


def unpack_arrays(record: ArrayRecord) -> Arrays:
    """Arrays out of Flower's form.

    Raises:
        MessageError: If they are no safetensors.
    """
    if not record:
        return {}
    if set(record) != {_PACKED}:
        raise MessageError(f"wanted an array {_PACKED}, got {sorted(record)}")
    try:
        return load(record[_PACKED].numpy().tobytes())
    except Exception as error:  # numpy and safetensors raise many kinds for other bytes
        raise MessageError(f"{_PACKED} holds no arrays ({type(error).__name__})") from None


def _records(settings: Mapping[str, Any], figures: Mapping[str, Any], arrays: Arrays) -> RecordDict:
    return RecordDict(
        {
            _SETTINGS: ConfigRecord(dict(settings)),
            _FIGURES: MetricRecord(dict(figures)),
            _ARRAYS: pack_arrays(arrays),
        }
    )


def _read(
    content: RecordDict, settings: Mapping[str, type], figures: Mapping[str, type]
) -> tuple[dict[str, object], dict[str, object], Arrays]:
    if set(content) != {_SETTINGS, _FIGURES, _ARRAYS}:
        raise MessageError(f"wanted records settings, figures, arrays, got {sorted(content)}")
    kinds = (ConfigRecord, MetricRecord, ArrayRecord)
    records = content[_SETTINGS], content[_FIGURES], content[_ARRAYS]
    if not all(isinstance(record, kind) for record, kind in zip(records, kinds, strict=True)):
        raise MessageError("a record of another kind than its name says")
    return (
        _typed(content.config_records[_SETTINGS], settings),
        _typed(content.metric_records[_FIGURES], figures),
        unpack_arrays(content.array_records[_ARRAYS]),
    )


def _typed(record: Mapping[str, object], wanted: Mapping[str, type]) -> dict[str, object]:
    if set(record) != set(wanted):
        raise MessageError(f"wanted entries {sorted(wanted)}, got {sorted(record)}")
    for name, value in record.items():
        if type(value) is not wanted[name]:
            raise MessageError(f"{name} is no {wanted[name].__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise MessageError(f"{name} is not finite")
    return dict(record)


def _check_names(arrays: Arrays, allowed: Collection[str]) -> None:
    unknown = sorted(set(arrays) - set(allowed))
    if unknown:
        raise MessageError(f"arrays that are not allowed: {', '.join(unknown)}")


def _square(flat: object) -> np.ndarray | None:
    counts = flat if isinstance(flat, list) else []
    side = math.isqrt(len(counts))
    if side * side != len(counts) or not all(type(n) is int and 0 <= n < 2**63 for n in counts):
        raise MessageError("the confusion counts are no square of counts")
    return np.array(counts, dtype=np.int64).reshape(side, side) if side else None
