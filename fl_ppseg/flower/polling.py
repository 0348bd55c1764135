"""How often to ask for what has not come yet: the longer it has been quiet, the more rarely.

The pause is a share of the time since something came last, so that asking adds at most that share
to any wait, however short or long, and the number of questions grows with its logarithm.

Flower pulls the parts of a message as soon as it knows of the message, usually before they are
there, and then waits for a second or more: `look_soon` makes its functions look again much sooner.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Final

FIRST_WAIT_SECONDS: Final = 0.05
"""For a part that is not there yet; doubles with each look, up to the longest."""
LONGEST_WAIT_SECONDS: Final = 1.0


@dataclass
class Polling:
    """The pause before the next question."""

    shortest: float
    """Seconds."""
    longest: float
    """Seconds; reached when it has been quiet for this divided by the share."""
    share: float = 0.1

    def __post_init__(self) -> None:
        self.came()

    def came(self) -> None:
        """Note that something came: ask often again."""
        self._since = time.monotonic()

    @property
    def seconds_quiet(self) -> float:
        """Seconds since something came last."""
        return time.monotonic() - self._since

    @property
    def pause(self) -> float:
        """Seconds to wait before the next question."""
        return min(max(self.share * self.seconds_quiet, self.shortest), self.longest)


def look_soon(module: ModuleType, name: str) -> None:
    """Make a function of Flower's that pulls parts look for missing ones sooner, and as long.

    Args:
        module: Which calls it.
        name: `pull_objects` or `pull_and_inflate_object_from_tree`.

    Raises:
        AttributeError: Flower has renamed it.
    """
    pull: Callable[..., Any] = getattr(module, name)
    if not isinstance(pull, partial):
        soon = {"initial_backoff": FIRST_WAIT_SECONDS, "backoff_cap": LONGEST_WAIT_SECONDS}
        setattr(module, name, partial(pull, max_tries_per_object=None, **soon))
