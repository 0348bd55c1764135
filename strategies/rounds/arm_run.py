"""One arm and seed of an experiment, as the server sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.federation.description import Description
from fl_ppseg.federation.message_content import Request
from strategies.rounds.discovery import Discovery
from strategies.rounds.reported_counts import ReportedCounts


@dataclass(frozen=True)
class ArmRun:
    """What the strategy of an arm and seed is given."""

    request: Request
    """What every request of this arm has in common; round, task and arrays are filled in."""
    federation: FederationConfig
    discovery: Discovery
    """The connected nodes; polled again before each exchange."""
    description: Description
    """Description of the model for its checkpoints."""
    is_centralised: bool = False
    """One node trains on the images of all clients; all clients are scored."""
    num_val: int = 0
    """Number of expected val clients: a round is scored only if all of them replied."""
    num_examples: Mapping[str, int] = field(default_factory=dict)
    """Images by client, as far as known at the start: who has most images is asked first."""
    reported: ReportedCounts = field(default_factory=lambda: ReportedCounts({}))
    """What the clients have reported of their images in this run."""
