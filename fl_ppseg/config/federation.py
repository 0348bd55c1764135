"""The section on rounds, participation and aggregation."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from fl_ppseg.config.bounds import Fraction, Positive, Rounds, Seconds
from fl_ppseg.config.section import Section

SERVER_RATES: Final = {"fedavg": 1.0, "fedavgm": 1.0, "fedadam": 0.01}
"""The server's step where a config names none."""
FEDADAM_BETA2: Final = 0.99
"""Decay of fedadam's second moment (Reddi et al. 2021, section 5)."""


class PrivacyConfig(Section):
    """Central differential privacy: the published weights hide whether a client's images were used.

    The coordinator itself is trusted here; a node's own policy can add noise before it sends. Arms
    that average nothing (local-only) get none.
    """

    noise_multiplier: Positive
    """Standard deviation of the noise on the sum of the updates, in units of clipping_norm."""
    clipping_norm: Positive
    """Largest norm of a client's update; longer ones are scaled down to it."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """delta at which the results report epsilon."""


class FederationConfig(Section):
    """Rounds, participation and aggregation."""

    num_rounds: Rounds = 10
    """Communication rounds per arm."""
    strategy: Literal["fedavg", "fedavgm", "fedadam"] = "fedavg"
    """How the server applies the mean update."""
    server_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Step of the server; none: 1 for fedavg and fedavgm, 0.01 for fedadam."""
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of fedavgm; first moment of fedadam."""
    aggregation: Literal[
        "mean", "median", "trimmed-mean", "norm-clipping", "krum", "multi-krum"
    ] = "mean"
    """How the updates of a round become one; mean and norm-clipping hold one of them at a time, the
    others, which give every client the same weight, hold all."""
    weighting: Literal["examples", "equal"] = "examples"
    """Weight of a client in a mean: the number of images that it reports, or one for all."""
    max_share: Annotated[float, Field(ge=0.5, le=1)] = 0.5
    """Largest share of a client in a mean by examples, if only the clients know how many images
    they have; 1: no limit. In a simulation the partition knows."""
    trim_fraction: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """trimmed-mean: share of the updates that is cut off at each end, for each weight; of three or
    more it is one at least."""
    num_byzantine: Annotated[int, Field(ge=0, le=10_000)] = 1
    """krum and multi-krum: how many clients may lie; they need 2 f + 3 good replies."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """norm-clipping: largest norm of an update; longer ones are scaled down to it."""
    max_relative_norm: Positive | None = 10.0
    """Updates whose norm is more than this multiple of the norm of the weights that they start
    from are rejected (honest ones: 0.04 to 0.3; with noise of a node's own, up to 8 were seen);
    results.jsonl names the norms (update_norm)."""
    max_update_norm: Annotated[float, Field(gt=0)] | None = None
    """Updates of a larger norm are rejected."""
    max_norm_ratio: Annotated[float, Field(gt=1)] | None = None
    """Updates whose norm is above this multiple of the median of the last round are rejected."""
    privacy: PrivacyConfig | None = None
    """Central differential privacy; null: no noise."""
    secure_aggregation: bool = False
    """Secure aggregation: the coordinator learns the sum of the updates of a round, and no single
    one."""
    least_cohort: Annotated[int, Field(ge=2, le=10_000)] = 3
    """secure_aggregation: fewest clients that are ever added up; each node checks it."""
    update_bound: Positive | None = None
    """secure_aggregation: the most that an update may move a weight, clipped on the node; null:
    what the optimiser can do at most in a round."""
    fraction_train: Fraction = 1.0
    """Share of the training clients asked in a round, drawn by the seed."""
    evaluate_every: Rounds = 1
    """Rounds between two evaluations; the last rounds are always evaluated."""
    last_rounds: Rounds = 3
    """K: scores are the mean over the last K rounds."""
    min_replies: Fraction = 0.5
    """Quorum: share of the asked clients whose good replies a round needs, and of the nodes that
    must be connected for a run to start."""
    max_retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a round that misses its quorum asks the clients without a good update again."""
    round_timeout: Annotated[Seconds, Field(gt=0)] = 3600.0
    """Seconds that the server waits for the replies of a round."""
    grace_seconds: Seconds = 0.0
    """Grace period: seconds that a node which disconnects during a round has to reconnect, to be
    asked again; 0: none. On separate machines more than 60, the time after which Flower notices
    that a node is gone."""
    wait_seconds: Annotated[Seconds, Field(gt=0)] = 120.0
    """Seconds to wait for missing nodes: for all of them at the start, for the quorum later."""
    keep_checkpoints: Rounds = 2
    """Checkpoints kept for each arm and seed."""

    @model_validator(mode="after")
    def _options_that_belong_together(self) -> Self:
        if self.aggregation == "norm-clipping" and self.clip_norm is None:
            raise ValueError("aggregation norm-clipping needs clip_norm, the largest norm")
        if self.privacy is not None and self.aggregation != "mean":
            raise ValueError("privacy clips updates itself and needs aggregation mean")
        if self.privacy is not None and self.max_norm_ratio is not None:
            raise ValueError(
                "privacy forbids max_norm_ratio, which looks at other clients' updates"
            )
        return self

    @model_validator(mode="after")
    def _sums_hide_single_updates(self) -> Self:
        if not self.secure_aggregation:
            if self.update_bound is not None:
                raise ValueError("update_bound is only used with secure_aggregation")
            return self
        limits = ("max_relative_norm", "max_update_norm", "max_norm_ratio")
        for name in limits:
            if getattr(self, name) not in (None, type(self).model_fields[name].default):
                raise ValueError(
                    f"secure_aggregation hides the norms that {name} looks at; leave it out, each "
                    "node clips its own update (update_bound)"
                )
        if self.aggregation != "mean":
            raise ValueError(
                f"secure_aggregation hides the single updates that aggregation {self.aggregation} "
                "compares; use mean, whose clients clip their own updates (update_bound)"
            )
        if self.max_share not in (1.0, type(self).model_fields["max_share"].default):
            raise ValueError(
                "secure_aggregation cannot cut one client's share of a sum to max_share; use "
                "weighting equal"
            )
        if self.privacy is not None:
            raise ValueError(
                "secure_aggregation hides the single updates that privacy clips; use the noise "
                "that nodes add themselves (privacy in their policies)"
            )
        return self

    @property
    def server_rate(self) -> float:
        """The server's step: server_learning_rate, or the strategy's own."""
        return self.server_learning_rate or SERVER_RATES[self.strategy]

    @property
    def fewest_replies(self) -> int:
        """Good replies without which the aggregation is not what its name says."""
        if self.aggregation in ("krum", "multi-krum"):
            return 2 * self.num_byzantine + 3  # Blanchard et al. 2017, proposition 2
        return 3 if self.aggregation in ("median", "trimmed-mean") else 1

    @property
    def first_scored(self) -> int:
        """The first of the last rounds, whose mean is the score of an arm."""
        return max(1, self.num_rounds - self.last_rounds + 1)

    def is_evaluated(self, round: int) -> bool:
        """Whether the model is scored after a round: every so often, and after each of the last."""
        return round >= self.first_scored or round % self.evaluate_every == 0

    @property
    def num_evaluations(self) -> int:
        """How often an arm is scored: at its start, and after rounds.

        >>> FederationConfig(num_rounds=10, evaluate_every=4, last_rounds=3).num_evaluations
        5
        """
        return 1 + sum(map(self.is_evaluated, range(1, self.num_rounds + 1)))

    def num_asked(self, num_trainers: int) -> int:
        """Clients that are asked in a round, of those that train."""
        return max(1, round(self.fraction_train * num_trainers))
