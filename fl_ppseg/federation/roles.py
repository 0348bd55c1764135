"""What a node is in a federation, and what it is asked to do. Imports nothing."""

from typing import Literal

Role = Literal["train", "val"]
"""A val node only evaluates."""
SumStep = Literal["advertise", "share", "confirm", "unmask"]
"""Steps of secure aggregation before and after the training of a round."""
Task = Literal["describe", "train", "evaluate", "advertise", "share", "confirm", "unmask"]
