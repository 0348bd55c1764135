"""Weights by name: what updates, messages and checkpoints are made of. Imports numpy alone."""

import numpy as np

Arrays = dict[str, np.ndarray]
"""Tensor of a state dict -> its values."""
