"""A checkpoint: tensors in .safetensors, and a .json beside them that says what they are.

The .json holds the hash of the tensors, its own, and that of the settings that they were trained
with. A bit that flips in either file is noticed; so is a config.yaml of other settings. Checkpoints
of earlier versions hold the first hash alone, and are read.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fl_ppseg.config.documents import parse_json, read_bytes
from fl_ppseg.config.sections import MEMORY, Config
from fl_ppseg.federation.description import Description, parse_description
from fl_ppseg.setr.tensor_file import read_header
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import sha256, write_atomically

SCHEMA: Final = 1
OF_CLIENT: Final = "//"
"""Between client and tensor in the names of weights of which every client has its own."""
MAX_DESCRIPTION_BYTES: Final = 2**20
FREE_SETTINGS: Final = frozenset(
    {"name", "engine", "device", "num_workers", "arms", "seeds", "cells", "arm_table"}
)
"""Settings that may change when a run is resumed, or that each checkpoint holds itself."""
FREE_OF_FEDERATION: Final = (
    "num_rounds", "round_timeout", "grace_seconds", "wait_seconds", "max_retries",
    "keep_checkpoints",
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """Global weights after a round, with what is needed to go on or to use them elsewhere."""

    round: int
    arrays: Arrays
    optimizer: Mapping[str, Arrays]
    """Moments of the server optimiser by name, and the state of coded weights
    (`fl_ppseg.federation.coded_weights`)."""
    description: Description
    """Arm, seed, model and classes."""

    @property
    def has_own_models(self) -> bool:
        """Whether every client has its own model here, `<client>//<tensor>`, and none is common."""
        return any(OF_CLIENT in name for name in self.arrays)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the tensors, then the .json that makes them a checkpoint."""
    tensors = {f"model/{name}": value for name, value in checkpoint.arrays.items()}
    for moment, arrays in checkpoint.optimizer.items():
        tensors |= {f"optimizer/{moment}/{name}": value for name, value in arrays.items()}
    # safetensors writes an array's memory as it lies, whatever its strides.
    in_order = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    write_atomically(path, save(in_order))
    about = {"schema": SCHEMA, "round": checkpoint.round, "sha256": sha256(path)}
    about |= checkpoint.description.to_values()
    about |= {"about_sha256": _hash_of(about)}
    write_atomically(path.with_suffix(".json"), json.dumps(about, indent=1))


def settings_hash(config: Config) -> str:
    """Digest of the settings that decide what a round of training gives.

    Defaults count as not given, so that settings which a later version adds change nothing.
    """
    values = config.model_dump(mode="json", exclude_defaults=True, exclude=set(FREE_SETTINGS))
    for section, names in (("federation", FREE_OF_FEDERATION), ("training", MEMORY)):
        for name in names:
            values.get(section, {}).pop(name, None)
    values.get("data", {}).pop("root", None)
    return _hash_of({name: value for name, value in values.items() if value})


def _hash_of(values: Mapping[str, Any]) -> str:
    """Digest of plain values, whatever their order."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint: the tensors, what is said of them, and that they belong.

    Raises:
        InputError: If it is missing, of another version or damaged, or describes no model.
    """
    try:
        about = _entries(path)
        digest = about.pop("sha256")
        round_ = about.pop("round")
        if type(round_) is not int or round_ < 0:
            raise InputError(f"{path}: not a readable checkpoint (round {round_!r})")
        if digest != sha256(path):
            raise InputError(f"{path}: damaged checkpoint (its hash differs)")
        read_header(path)
        tensors = load_file(path)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({error})") from None
    optimizer: dict[str, Arrays] = {}
    model: Arrays = {}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        moment, _, of_moment = name.partition("/")
        if kind == "model":
            model[name] = value
        elif kind == "optimizer" and of_moment:
            optimizer.setdefault(moment, {})[of_moment] = value
        else:
            raise InputError(f"{path}: not a readable checkpoint (tensor {key[:80]!r})")
    description = parse_description(about, str(path.with_suffix(".json")))
    return Checkpoint(round_, model, optimizer, description)


def _entries(path: Path) -> dict[str, Any]:
    """What a checkpoint's .json says, if its own hash agrees; earlier versions wrote none."""
    file = path.with_suffix(".json")
    try:
        about = parse_json(read_bytes(file, MAX_DESCRIPTION_BYTES), str(file))
    except InputError as error:
        raise InputError(f"{path}: not a readable checkpoint ({error})") from None
    if not isinstance(about, dict):
        raise InputError(f"{path}: not a readable checkpoint (its .json is not an object)")
    if (schema := about.get("schema")) != SCHEMA:
        raise InputError(f"{path}: expected a checkpoint of schema {SCHEMA}, got {schema!r}")
    digest = about.pop("about_sha256", None)
    if digest is not None and digest != _hash_of(about):
        raise InputError(f"{path}: damaged checkpoint (the hash of its .json differs)")
    del about["schema"]
    if digest is None and "settings" in about:
        raise InputError(f"{path}: damaged checkpoint (its .json lacks its hash)")
    return about
