"""The coordinator infers the subspace that an image's tokens span, and the blocks that lie in it.

Adversary: the coordinator, honest but curious, with one client's message of one round and public
images; no image, label or key of the client. As in `gradient_matching` it works with the public
embedding, whatever the client's private one is.

Method (Petrov et al., "DAGER", NeurIPS 2024, whose tokens are words, tested one by one; as in
"TIGER", Kalikman et al. 2026, they are continuous here, but the distance to the subspace is a
linear least-squares problem with a prior): the first layer's queries, keys and values are made by
W, so that with u_n its input, which depends on block n, and d_n the gradient at its output

    dL/dW = sum_n d_n u_n^T,   u_n = w * (z_n - mean(z_n)) / s_n + b,   z_n = E x_n + e + p_n.

Every u_n lies in the row space of dL/dW. If there are fewer tokens than channels, s_n u_n is zero
in all other directions: linear equations for the block x_n and the size s_n of its token. The
result is their posterior mean; the prior is Gaussian, with the public images' mean at the place of
block n and the covariance of their blocks. Singular values below the edge of those of rounding
(Marchenko and Pastur 1967) count as zero, and the noise of the equations has the variance of
maximum likelihood.

Must succeed: one image, SGD, blocks x images far fewer than the width: returns the image itself,
whether the embedding is uploaded, frozen or private. Must fail: as many tokens as channels, or
several steps of AdamW. From a batch it returns one image, a mixture.
"""

from typing import Final

import numpy as np

from fl_ppseg.audit.attacks.gradients import Floats, gradient_of
from fl_ppseg.audit.attacks.inputs import Images, image_of, read_blocks
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.data.blocks import Geometry
from fl_ppseg.setr.names import EMBEDDING_TENSORS, POSITION_TENSOR

_QUERIES: Final = "backbone.blocks.0.attn.qkv.weight"
_NORM: Final = ("backbone.blocks.0.norm1.weight", "backbone.blocks.0.norm1.bias")
_MARGIN: Final = 1.1
"""Factor on the largest singular value that rounding is expected to make."""
_TINY: Final = 1e-6
"""Lower bound of a deviation, relative to the largest: exact zeros have none."""
_STRANGE: Final = (1e-5, 1e-4, 1e-3, 1e-2)
"""Variances tried for a block's values outside the public covariance, in [-1, 1]."""
_DEVIATIONS: Final = np.logspace(-8, 1, 28)
"""Variances tried for the equations, relative to the largest variance of blocks along one."""


def token_span(exchange: Exchange, images: Images) -> Images | None:
    """Reconstruct one image from the message of one client, a mixture if it trained on several.

    Args:
        exchange: What the coordinator sent and received.
        images: (k, 3, H, W), public images; about a hundred.

    Returns:
        (1, 3, H, W); None if tokens span all channels, after several steps of AdamW, and for
        models without such a first layer.
    """
    if not {_QUERIES, *_NORM, POSITION_TENSOR} <= exchange.sent.keys():
        return None
    if not exchange.tells_sizes:
        return None
    size = exchange.sent[EMBEDDING_TENSORS[0]].shape[-1]
    geometry = Geometry.of_image(images.shape[1:], size)
    outside = _outside(exchange)
    if outside.shape[1] < 2:  # LayerNorm without a bias leaves one out itself
        return None
    blocks = read_blocks(images, None, size)
    return image_of(_blocks(exchange, outside, blocks), None, geometry)


def _outside(exchange: Exchange) -> Floats:
    """(D, K), orthonormal directions orthogonal to all tokens."""
    gradient = gradient_of(exchange, _QUERIES)
    deviation = np.sqrt(np.mean(gradient.deviation**2, axis=1, keepdims=True))  # of each output
    values = gradient.value / np.maximum(deviation, _TINY * deviation.max())
    edge = _MARGIN * sum(side**0.5 for side in values.shape)
    _, sizes, directions = np.linalg.svd(values)
    rank = min(int((sizes > edge).sum()), _num_tokens(exchange))
    return np.asarray(directions[rank:].T)


def _num_tokens(exchange: Exchange) -> int:
    """The number of tokens of all images that the client trained on."""
    return exchange.num_examples * int(exchange.sent[POSITION_TENSOR].shape[1])


def _blocks(exchange: Exchange, outside: Floats, public: Floats) -> Floats:
    """(N, L), the posterior mean of the blocks.

    Args:
        exchange: What the coordinator sent and received.
        outside: (D, K), of `_outside`.
        public: (k, N, L), blocks of public images, in [-1, 1].
    """
    usual = public.mean(axis=0)
    to_token, constant = _tokens(exchange, *usual.shape)
    sizes = (public @ to_token.T + constant).std(axis=-1)
    weight, bias = (_sent(exchange, name) for name in _NORM)
    centred = (outside * weight[:, None]).T  # (K, D), less the mean of each token
    centred -= centred.mean(axis=1, keepdims=True)
    equations = np.column_stack([centred @ to_token, outside.T @ bias])
    right = -(constant @ centred.T) - np.column_stack([usual, sizes.mean(axis=0)]) @ equations.T
    prior, strange = _covariance(public - usual, sizes), np.eye(usual.shape[1] + 1)
    strange[-1, -1] = 0.0
    found = (_posterior(equations, right, prior + each * strange) for each in _STRANGE)
    _, unusual = max(found, key=lambda each: each[0])
    blocks: Floats = usual + unusual[:, :-1]
    return blocks


def _tokens(exchange: Exchange, num_blocks: int, length: int) -> tuple[Floats, Floats]:
    """(D, L) and (N, D): the tokens of blocks x_n are z_n = first @ x_n + second_n."""
    kernel, bias = (_sent(exchange, name) for name in EMBEDDING_TENSORS)
    return kernel.reshape(-1, length), bias + _sent(exchange, POSITION_TENSOR)[0, -num_blocks:]


def _sent(exchange: Exchange, name: str) -> Floats:
    return np.asarray(exchange.sent[name], np.float64)


def _covariance(deviations: Floats, sizes: Floats) -> Floats:
    """(L + 1, L + 1), covariance of blocks (k, N, L) and of their tokens' sizes (k, N)."""
    length = deviations.shape[-1]
    flat = deviations.reshape(-1, length)
    prior = np.zeros((length + 1, length + 1))
    prior[:-1, :-1] = flat.T @ flat / len(flat)
    prior[-1, -1] = sizes.var(axis=0).mean()
    return prior


def _posterior(equations: Floats, right: Floats, prior: Floats) -> tuple[float, Floats]:
    """Log likelihood up to a constant, and (N, V), the posterior mean of the unknowns.

    The noise is that of maximum likelihood (Rasmussen and Williams 2006, equation 2.30).

    Args:
        equations: (K, V).
        right: (N, K), right-hand sides.
        prior: (V, V), covariance of the unknowns.
    """
    seen = prior @ equations.T
    variances, basis = np.linalg.eigh(equations @ seen)
    variances = np.maximum(variances, 0)
    along = right @ basis

    def likelihood(noise: float) -> float:
        total = variances + noise
        return -0.5 * float((along**2 / total).sum() + len(along) * np.log(total).sum())

    noise = max(_DEVIATIONS * variances.max(), key=likelihood)
    return likelihood(noise), (along / (variances + noise)) @ basis.T @ seen.T
