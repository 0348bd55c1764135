"""One arm and seed of an experiment, as the server sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.federation.message_content import Request
from strategies.rounds.claims import Claims
from strategies.rounds.roll_call import RollCall


@dataclass(frozen=True)
class ArmRun:
    """What the strategy of an arm and seed is given."""

    request: Request
    """What every request of this arm has in common; round, task and arrays are filled in."""
    federation: FederationConfig
    roll: RollCall
    """Who is there; looked at again before each exchange."""
    description: Mapping[str, Any]
    """What its checkpoints say of the model."""
    is_centralised: bool = False
    """One node trains on the images of all; all are scored."""
    num_val: int = 0
    """Val cities that are expected: without all of them a round has no scores."""
    num_examples: Mapping[str, int] = field(default_factory=dict)
    """Images by city, as far as they are known at the start: who has most is asked first."""
    claims: Claims = field(default_factory=lambda: Claims({}))
    """What the cities have said of their images in this run."""
