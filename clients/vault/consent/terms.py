"""The terms that a run's config asks an owner to agree to, per arm."""

from typing import Final, NamedTuple

from clients.policy.node_policy import architecture
from clients.policy.trust_region import falls, round_change, standalone_change
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import config_for
from fl_ppseg.config.sections import Config, ModelConfig, TrainingConfig
from fl_ppseg.crypto.arm_models import model_settings
from fl_ppseg.federation.roles import Role
from fl_ppseg.system.errors import InputError

MIN_SPARE: Final = 3
SPARE_SHARE: Final = 4
"""Rounds per spare question."""
LARGER: Final = 5
"""Assumed ratio between the images of the largest training client and this client's: in Cityscapes
the largest training client has 4.3 times as many as the smallest."""
UNKNOWN: Final = 500
"""Assumed images of the largest training client, for a client that trains on none: in Cityscapes
the largest has 365."""


class Terms(NamedTuple):
    """What the requests of one arm may ask of one node; fields as in `ArmPolicy`."""

    model: ModelConfig
    num_classes: int
    training: TrainingConfig
    num_rounds: int
    evaluations: int
    models: int
    spare: int
    max_change: float | None = None
    change_falls: bool = False
    agreement: str | None = None


def terms_of(
    config: Config,
    name: str,
    arm: ArmConfig,
    num_classes: int,
    patch_size: int,
    role: Role,
    largest: int,
    max_change: float | None = None,
) -> Terms:
    """The terms that a config asks an owner to agree to.

    Args:
        config: The run's.
        name: Id of the arm.
        arm: Its settings.
        num_classes: Of the config's class table.
        patch_size: Of the config's model, in pixels.
        role: Of the node.
        largest: Images that any client of the arm trains on, at most.
        max_change: The owner's own bound from its floor; None: computed from the config.

    Raises:
        InputError: The arm uses an embedding that its cipher does not allow, or coded weights have
            no bound.
    """
    config = config_for(config, arm)
    model = model_settings(config.model, name, arm).model_copy(update={"patch_size": patch_size})
    visitors = config.clients if (arm.training, role) == ("local-only", "val") else 1
    num_rounds, alone = config.federation.num_rounds, arm.training == "local-only"
    computed = max_change_of(config, arm, largest)
    if computed is None and max_change is None and config.training.weights_codec != "fp32":
        raise InputError(
            "training.weights_codec: without a bound on what training changes (SGD without "
            "gradient_clip) nodes have no copy of round 0; set it to fp32"
        )
    is_own = max_change is not None and (computed is None or max_change > computed)
    return Terms(
        model=architecture(model),
        num_classes=num_classes,
        training=config.training,
        num_rounds=num_rounds,
        evaluations=config.federation.num_evaluations,
        models=visitors,
        spare=max(MIN_SPARE, num_rounds // SPARE_SHARE),
        max_change=max_change or computed,
        change_falls=not is_own and (alone or falls(config.federation)),
    )


def max_change_of(config: Config, arm: ArmConfig, largest: int) -> float | None:
    """The most that a round of honest training moves a weight; None if there is no bound.

    Arguments as in `terms_of`.
    """
    if arm.training == "local-only":
        return standalone_change(config.training, config.federation, largest)
    return round_change(config.training, config.federation, largest, config.clients)


def largest_elsewhere(num_train: int) -> int:
    """Images of the largest training client, as an owner assumes who knows only its own number."""
    return LARGER * num_train if num_train else UNKNOWN
