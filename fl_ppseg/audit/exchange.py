"""What a coordinator holds after one round: what it sent, and what came back of one client, or of
several whose updates were added under masks."""

from collections.abc import Mapping
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
    """The client's weights after it, or the mean of several clients'; without those that do not
    travel."""
    model: ModelConfig
    training: TrainingConfig
    num_classes: int
    image_size: tuple[int, int]
    """(height, width) of the model's input, in pixels."""
    round: int
    """From 1."""
    num_rounds: int
    num_examples: int
    """Images of the client, by its reply; of all clients of a sum."""
    summed: Mapping[str, int] = field(default_factory=dict)
    """Images by client of those whose updates were added; empty: the update of one client."""

    @property
    def steps_an_epoch(self) -> int:
        """Optimiser steps that the client took in one pass over its images; of a sum the largest
        client."""
        return self.training.steps_a_pass(max(self.summed.values(), default=self.num_examples))

    @property
    def num_steps(self) -> int:
        """Optimiser steps that the client took; of a sum the largest client."""
        return self.training.local_epochs * self.steps_an_epoch

    @property
    def tells_sizes(self) -> bool:
        """Whether changes of weights tell how large gradients are: after several steps of AdamW,
        or of the mean of several clients' steps, they tell whether signs agree."""
        is_alone = self.num_steps == 1 and len(self.summed) < 2
        return self.training.optimizer != "adamw" or is_alone
