"""What is known of a model beside what its users need: how it was built, trained and attacked."""

from typing import Annotated

from pydantic import Field

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.bounds import Seed
from fl_ppseg.config.section import Section
from fl_ppseg.config.sections import ModelConfig

Percent = Annotated[float, Field(ge=0, le=100)] | None
Count = Annotated[int, Field(ge=0, le=2**31)]
Words = Annotated[str, Field(max_length=4_000)]
Place = Annotated[str, Field(max_length=200)]


class ReachedScores(Section):
    """What the arm reached in its run, in percent: means over the last rounds and the seeds."""

    aAcc: Percent = None  # noqa: N815
    """Share of labelled pixels that are right."""
    mIoU: Percent = None  # noqa: N815
    """Over places and clients that training never saw."""
    own_mIoU: Percent = None  # noqa: N815
    """Over held-out images of the clients that trained."""
    start_mIoU: Percent = None  # noqa: N815
    """Of the weights that training started from."""
    no_image_mIoU: Percent = None  # noqa: N815
    """Of the commonest class of each pixel, without a look at any image."""
    plain_mIoU: Percent = None  # noqa: N815
    """Of the same training without encryption."""
    num_seeds: Count = 0
    """Trainings that the means are over."""


class Facts(Section):
    """How a model came to be, as far as its run folder says."""

    seed: Seed | None = None
    """Of the training."""
    round: Count | None = None
    """Rounds of training behind the weights."""
    data: Words | None = None
    """What was trained on, in words."""
    places: Annotated[tuple[Place, ...], Field(max_length=10_000)] = ()
    """Clients that trained."""
    num_images: Count | None = None
    """Training images of all clients together."""
    scores: ReachedScores | None = None
    """What the arm reached."""
    audit: Annotated[tuple[Words, ...], Field(max_length=100)] = ()
    """What the attacks of an audit got from the arm, in sentences."""


class About(Section):
    """How a model was built and trained."""

    settings: ModelConfig
    """Section `model` of its config."""
    protection: ArmConfig
    """How the arm that trained it protects images."""
    facts: Facts = Facts()
    """How it came to be."""
