"""What requests and replies say; `messages` packs them for Flower, which is not imported here."""

from dataclasses import dataclass, field

import numpy as np

from fl_ppseg.config.sections import ModelConfig, TrainingConfig
from fl_ppseg.federation.roles import Role, Task
from fl_ppseg.system.arrays import Arrays, array_bytes


@dataclass(frozen=True)
class SumPart:
    """What a request of secure aggregation says beside the rest."""

    attempt: int
    """Attempt at this round, from 0."""
    content: str = field(default="", repr=False)
    """JSON, of `fl_ppseg.secure_sum.contents`; empty to advertise."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the content."""
        return len(self.content.encode())


@dataclass(frozen=True)
class Request:
    """What the coordinator asks of a node."""

    task: Task
    run_id: str
    round: int
    """Round from 1; 0: the weights that training starts from."""
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
    sum: SumPart | None = None
    """In every step of secure aggregation."""


@dataclass(frozen=True)
class Reply:
    """What a node answers: weights and counts, never images, labels or keys."""

    run_id: str
    round: int
    client: str
    num_examples: int
    """Images that the local update or the evaluation used; 0: nothing was labelled to train on."""
    loss: float | None
    """Mean loss a labelled pixel; None where there was none, or the owner demands noise."""
    seconds: float
    """Compute seconds on the node."""
    confusion: np.ndarray | None = None
    """(num_classes, num_classes) int64, rows are the truth; None after training."""
    arrays: Arrays = field(default_factory=dict, repr=False)
    sum: str | None = field(default=None, repr=False)
    """JSON, of `fl_ppseg.secure_sum`, in the steps of secure aggregation around training."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays, and of what secure aggregation says."""
        said = len((self.sum or "").encode())
        return said + array_bytes(self.arrays)


@dataclass(frozen=True)
class Description:
    """How a node introduces itself."""

    run_id: str
    client: str
    role: Role
