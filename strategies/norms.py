"""How far an update moves the weights, and how far is too far.

The norm is Euclidean, over all trained weights together; counters of whole numbers are left out.
Two rules may be on: a fixed limit, and a multiple of the median over the accepted updates of the
newest earlier round of this arm and seed. Neither looks at other updates of the same round, so a
reply is judged as it comes, whatever the order of arrival, and one in memory at a time. The median
holds while fewer than half of those cities lie; in round 1 the second rule has nothing to compare
with. The norms stand in results.jsonl, where a resumed run finds them again.
"""

from collections.abc import Iterable
from statistics import median

from fl_ppseg.config import FederationConfig
from fl_ppseg.run_folder import Line


class NormError(ValueError):
    """An update that is too long."""


class NormRule:
    """Decides on the norm of one update at a time."""

    def __init__(self, config: FederationConfig, lines: Iterable[Line] = ()) -> None:
        """Start with the lines of results of the arm and seed so far."""
        self._limit = config.max_update_norm
        self._ratio = config.max_norm_ratio
        self.is_on = self._limit is not None or self._ratio is not None
        norms = [(x["round"], x["update_norm"]) for x in lines if "update_norm" in x]
        newest = max((round_ for round_, _ in norms), default=0)
        self._earlier = [norm for round_, norm in norms if round_ == newest]

    def check(self, norm: float) -> None:
        """Accept a norm.

        Raises:
            NormError: If it is beyond a limit.
        """
        if self._limit is not None and norm > self._limit:
            raise NormError(f"an update of norm {norm:.3g}, at most {self._limit:.3g} is allowed")
        if self._ratio is not None and self._earlier:
            usual = median(self._earlier)
            if norm > self._ratio * usual:
                raise NormError(
                    f"an update of norm {norm:.3g}, more than {self._ratio:.3g} times the median "
                    f"{usual:.3g} of the round before"
                )

    def end_round(self, norms: Iterable[float]) -> None:
        """Take the norms that were accepted in a round as the measure of the next."""
        self._earlier = list(norms) or self._earlier
