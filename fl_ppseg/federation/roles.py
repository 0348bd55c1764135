"""What a node is in a federation, and what it is asked to do. Imports nothing."""

from typing import Literal

Role = Literal["train", "val"]
"""A val node only evaluates."""
Task = Literal["describe", "train", "evaluate"]
