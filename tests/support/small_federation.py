"""A federation of three small clients, prepared and run in this process."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from flwr.clientapp import ClientApp
from rich.console import Console

from clients.client_app import app
from clients.policy.node_policy import NODES_VARIABLE
from fl_ppseg.config.sections import Config, ModelConfig
from fl_ppseg.experiment.preparation import Experiment, prepare
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.flower.in_process import run_in_process
from fl_ppseg.progress.observer import Observer, SilentObserver
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.setr.build import build_setr
from fl_ppseg.setr.model import SETR
from fl_ppseg.system import workers
from fl_ppseg.system.arrays import Arrays
from strategies.server_app import Federation, build_server_app

NUM_CLASSES = 19
SETTINGS: dict[str, Any] = {
    "name": "small",
    "clients": 3,
    "engine": "in-process",
    "num_workers": 1,
    "data": {"image_size": [32, 64], "num_views": 2},
    "model": {
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "decoder": "naive",
        "decoder_channels": 16,
        "weights": None,
    },
    "training": {"batch_size": 2},
    "federation": {"num_rounds": 2, "last_rounds": 1},
}
"""As a YAML file would have them."""


def settings(root: Path | None, **changes: Any) -> dict[str, Any]:
    """SETTINGS on a data set; a change of a section's fields is laid over the section."""
    merged = {**SETTINGS, "data": SETTINGS["data"] | {"root": root and str(root)}}
    for name, value in changes.items():
        merged[name] = merged.get(name, {}) | value if isinstance(value, dict) else value
    return merged


def config(root: Path | None, **changes: Any) -> Config:
    return Config.model_validate(settings(root, **changes))


def model(**changes: Any) -> SETR:
    section = ModelConfig.model_validate(SETTINGS["model"] | changes)
    return build_setr(section, NUM_CLASSES, (32, 64), seed=0)


def weights_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def arrays_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


REAL_POOL = ProcessPoolExecutor


class InlinePool:
    """A process pool without processes; that of the program is used through the command."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def submit(self, call: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, **_: object) -> None: ...


def prepared(settings: Config, place: Path, num_workers: int = 1, run: str = "run") -> Experiment:
    """The experiment with its run folder and vaults in `place`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "ProcessPoolExecutor", InlinePool)
        quiet = StepProgress(Console(), quiet=True)
        folder = RunFolder(place / run)
        return prepare(settings, folder, place / "vaults", num_workers, quiet)


def federate(
    experiment: Experiment,
    observer: Observer | None = None,
    client_app: Callable[..., Message] | None = None,
) -> RunFolder:
    """Train all arms of an experiment; returns its run folder."""
    server = build_server_app(
        Federation(experiment.folder, observer or SilentObserver(), experiment.num_nodes)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NODES_VARIABLE, str(experiment.nodes))
        run_in_process(server, client_app or app, experiment.num_nodes)  # type: ignore[arg-type]
    return experiment.folder


def final(folder: RunFolder, arm: str, seed: int = 0) -> Arrays:
    """The newest global weights of an arm."""
    checkpoint = folder.latest(arm, seed)
    assert checkpoint is not None
    return checkpoint.arrays


def bits(weights: Any) -> str:
    """Digest of names, shapes and bytes of tensors or arrays."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


class Recorder:
    """A ClientApp that keeps every message it is given and every reply that it makes."""

    def __init__(self, inner: ClientApp = app) -> None:
        self.inner = inner
        self.received: list[Message] = []
        self.sent: list[Message] = []

    def __call__(self, message: Message, context: Any) -> Message:
        reply = self.inner(message, context)
        self.received.append(message)
        self.sent.append(reply)
        return reply


def tree_of_links(root: Path, copy: Path) -> Path:
    """A copy of a data set whose files may be replaced, but not written into."""
    for file in root.rglob("*"):
        target = copy / file.relative_to(root)
        if file.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, target)
    return copy
