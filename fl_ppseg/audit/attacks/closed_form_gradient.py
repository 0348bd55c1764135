"""The coordinator reconstructs an image from the gradients of patch and position embedding.

Adversary: the coordinator, honest but curious, with one client's message of one round. It holds the
weights that it sent, those that it received, and the training settings; no image, no key.

Method (APRIL, Lu et al., CVPR 2022, section 4; here by least squares over tokens): the token of
block n is z_n = E x_n + b + p_n, so that with g_n the gradient of its position embedding p_n

    dL/dE = sum_n g_n x_n^T,     a linear system for the blocks x_n.

Three sources of error are modelled: weights are float32 (see `gradients`), tokens may outnumber the
independent equations (LayerNorm removes one of the D), and several images or steps give only sums.
The reconstruction is the posterior mean of a Gaussian process (see `gaussian_process`): the prior
is that near blocks resemble each other, the variance of rounding is known, and the variance of all
other noise is the one that maximises the likelihood of the message.

Must succeed: plain images, E uploaded, one image, SGD: returns the image itself. Must fail: E
frozen or private, for then dL/dE is not sent. From encrypted training with E uploaded it returns
the ciphertext; with an invariant E, which reads canonical forms, an image of the same canonical
form as the ciphertext. From a batch it returns one image, a mixture of all.
"""

from typing import Final

import numpy as np

from fl_ppseg.audit.attacks.gaussian_process import error_of_sums, most_plausible, resemblance
from fl_ppseg.audit.attacks.gradients import Floats, Gradient, gradient_of, token_gradients
from fl_ppseg.audit.attacks.inputs import Images, image_of
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.data.blocks import Geometry
from fl_ppseg.setr.names import EMBEDDING_TENSORS

_SPREAD: Final = 0.3
"""Variance of a value of a model's input, in [-1, 1]: that of street scenes."""
_FLOOR: Final = 0.01
"""Lower bound of the expected square of a value."""
_DISTURBANCES: Final = (0.0, *np.logspace(-9, 0, 10))
"""Variances tried for noise other than rounding, in units of the mean square of dL/dE."""


def closed_form_gradient(exchange: Exchange) -> Images | None:
    """Reconstruct one image from the message of one client, a mixture if it trained on several.

    Args:
        exchange: What the coordinator sent and received.

    Returns:
        (1, 3, H, W); None if the gradient of the patch embedding was not sent.
    """
    if EMBEDDING_TENSORS[0] not in exchange.returned:
        return None
    size = exchange.sent[EMBEDDING_TENSORS[0]].shape[-1]
    height, width = exchange.image_size
    geometry = Geometry(3, size, height // size, width // size)
    values = _blocks(exchange, geometry)
    blocks = values[:, : geometry.block_length]  # of a canonical form without its gaps
    return image_of(blocks, exchange.model.invariant, geometry)


def _blocks(exchange: Exchange, geometry: Geometry) -> Floats:
    """(N, C M²), the posterior mean of the blocks in [-1, 1]."""
    prior = _SPREAD * resemblance(geometry)
    tokens, embedding = token_gradients(exchange), _embedding(exchange)
    if not exchange.tells_sizes:  # signs have no size
        expected = np.einsum("nd,nm,md->", tokens.value, prior, tokens.value) / len(embedding.value)
        factor = np.sqrt(expected / np.mean(embedding.value**2))
        embedding = Gradient(*(factor * part for part in embedding))
    power = np.mean(embedding.value**2)
    squares = np.full((len(prior), embedding.value.shape[1]), _SPREAD)
    for _ in range(2):  # what the errors of G weigh depends on the blocks
        rounding = error_of_sums(tokens, embedding, squares)
        noises = (rounding + share * power for share in _DISTURBANCES)
        blocks = most_plausible(tokens.value, embedding.value, prior, noises)
        squares = np.clip(blocks, -1, 1) ** 2 + _FLOOR
    return blocks


def _embedding(exchange: Exchange) -> Gradient:
    """dL/dE, (D, C M²)."""
    kernel = gradient_of(exchange, EMBEDDING_TENSORS[0])
    return Gradient(*(part.reshape(len(part), -1) for part in kernel))
