"""What a coordinator holds after one round with one client: what it sent and what came back."""

from dataclasses import dataclass, field

from fl_ppseg.config.sections import ModelConfig, TrainingConfig
from fl_ppseg.system.arrays import Arrays


@dataclass(frozen=True)
class Exchange:
    """A request to train and its reply, as the coordinator keeps them.

    Every word of the request is its own; what an image was is not in it.
    """

    sent: Arrays = field(repr=False)
    """Global weights before the round, by name."""
    returned: Arrays = field(repr=False)
    """The client's weights after it; without those that do not travel."""
    model: ModelConfig
    training: TrainingConfig
    num_classes: int
    image_size: tuple[int, int]
    """(height, width) of the model's input, in pixels."""
    round: int
    """From 1."""
    num_rounds: int
    num_examples: int
    """Images of the client, by its reply."""

    @property
    def steps_an_epoch(self) -> int:
        """Optimiser steps that the client took in one pass over its images."""
        return self.training.steps_a_pass(self.num_examples)

    @property
    def num_steps(self) -> int:
        """Optimiser steps that the client took."""
        return self.training.local_epochs * self.steps_an_epoch
