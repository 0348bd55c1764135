"""Whole arms over fake nodes, from their start or from a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from descriptions import described
from fake_nodes import FakeNodes, Listener, nodes, request

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.messages import pack_arrays
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.flower.grid import LazyGrid
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays
from strategies.rounds.arm_run import ArmRun
from strategies.rounds.federated import FederatedStrategy

EMBEDDING = EMBEDDING_TENSORS[0]
START: Arrays = {
    EMBEDDING: np.zeros((2, 2), np.float32),
    "head.w": np.array([1, 2, 3], np.float32),
    "norm.num_batches_tracked": np.array(4),
}
FREE = {"max_relative_norm": None, "max_share": 1.0}
"""The three weights of `START` are moved by whole numbers: no bounds on what one client may do."""
ABOUT = described()


class Run:
    """A strategy over fake nodes, from its start or from a checkpoint."""

    def __init__(self, path: Path, fake: FakeNodes | None = None) -> None:
        self.fake = fake or nodes()
        self.folder = RunFolder(path)
        self.folder.path.mkdir(exist_ok=True)
        self.listener = Listener()

    def train(
        self,
        federation: Mapping[str, Any] | None = None,
        resumed: Checkpoint | None = None,
        until: int | None = None,
        kind: type[FederatedStrategy] = FederatedStrategy,
        is_centralised: bool = False,
        **changes: Any,
    ) -> "Run":
        config = FederationConfig.model_validate(FREE | {"num_rounds": 2} | dict(federation or {}))
        discovery = self.fake.discovery(self.listener)
        run = ArmRun(request(**changes), config, discovery, ABOUT, is_centralised)
        start = resumed or Checkpoint(0, START, {}, ABOUT)
        self.result = kind(run, self.folder, self.listener, start).start(
            LazyGrid(self.fake.grid),
            pack_arrays(start.arrays),
            num_rounds=(until or config.num_rounds) - start.round,
            timeout=60,
        )
        return self

    def checkpoint(self) -> Checkpoint:
        found = self.folder.latest("plain", 0)
        assert found is not None
        return found

    def trained(self) -> list[list[str]]:
        """Clients asked in each round."""
        asked = [(round, client) for task, round, client in self.fake.asked if task == "train"]
        rounds = sorted({round for round, _ in asked})
        return [[client for r, client in asked if r == round] for round in rounds]

    def lines(self, role: str) -> list[dict[str, Any]]:
        return [line for line in self.folder.lines() if line["role"] == role]


def assert_same(ours: Arrays, theirs: Arrays) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert (value.dtype, value.shape) == (theirs[name].dtype, theirs[name].shape)
        assert value.tobytes() == theirs[name].tobytes()
