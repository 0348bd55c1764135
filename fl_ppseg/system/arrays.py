"""Arrays as types: weights by name, and images. Imports numpy alone."""

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, np.ndarray]
"""Tensor of a state dict -> its values: what updates, messages and checkpoints are made of."""
Pixels = NDArray[np.uint8]
"""Values of images, or of label maps, as files hold them."""
