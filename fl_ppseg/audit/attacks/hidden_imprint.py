"""An active coordinator hides neurons among honest weights, and reads single blocks of images.

Adversary: as in `bounded_imprint`, but its node also refuses weights whose loss is high
(`max_loss_ratio`). So all weights stay honest but for some neurons of the first MLP, those that
matter least to the model, which it replaces.

Method (the thresholds of Fowl et al., "Robbing the Fed", ICLR 2022, on single tokens):

- A neuron fires for the token that lies furthest out along a direction of token space: its
  threshold is what about one token of the client exceeds. Thresholds are weights on the mean token,
  since a bias may not move far enough; the normalisation before the MLP is scaled up, and what
  honest neurons read scaled down, for sharper thresholds.
- What such neurons write into the token is next to nothing: the loss stays as it was.
- AdamW's steps tell of a gradient its signs. Each weight of a neuron that one token made fire moves
  by the sign of the token's channel, relative to its bias. A regression from the signs of public
  tokens to their blocks reads them.

Must succeed: plain images, late in a training, with the agreed settings. Must fail: with noise on
the weights. It shows blocks, not images: at most one a neuron, of unusual content, and not which
image it is of.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import gelu

from fl_ppseg.audit.attacks.bounded_imprinting import Limit
from fl_ppseg.audit.attacks.inputs import Floats, Images, first_layer, load, read_blocks
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.ridge import ridge, with_one
from fl_ppseg.system.arrays import Arrays

FIRST: Final = "backbone.blocks.0.mlp."
NORM: Final = "backbone.blocks.0.norm2."
_KEPT: Final = 0.02
"""Directions lie in the space of those of at least this share of the largest variance."""


@dataclass(frozen=True)
class Design:
    """How neurons are made; what the attacker may try."""

    share: float = 0.5
    """Of the neurons of the first MLP."""
    sharpness: float = 4.0
    """What a neuron sees of a deviation of public tokens."""
    scale: float = 2.0
    """Of the normalisation before the MLP."""
    above: float = 1.0
    """Tokens of the client that exceed a threshold."""
    evenness: float = 0.1
    """Penalty on the weights that make thresholds, relative to the tokens' variance."""
    out: float = 1e-9
    """What a neuron writes into each channel."""
    spread: float = 0.0
    """Of a direction that tokens hardly have, in each row, relative to the weights that make its
    threshold: rows that read alike no longer look alike."""
    seed: int = 0
    """Of the directions."""


class Hidden(NamedTuple):
    """Weights with hidden neurons."""

    weights: Arrays
    neurons: npt.NDArray[np.intp]
    """(K,), those that were replaced."""


class Blocks(NamedTuple):
    """Blocks that were read, in the order of the model's tokens."""

    positions: npt.NDArray[np.intp]
    """(n,), which block of an image each is."""
    values: Floats
    """(n, C M²) in [-1, 1], as `inputs.read_blocks` has them."""


def hide_neurons(
    network: SETR, public: Images, limit: Limit, num_images: int, design: Design = Design()
) -> Hidden:
    """Replace neurons of the first MLP.

    Args:
        network: A model with honest weights.
        public: (k, 3, H, W), public images as the model reads them.
        limit: To what the client's node accepts in this round.
        num_images: Of the client, as its replies say.
        design: How neurons are made.

    Returns:
        The weights, within the limit, and which neurons were replaced.
    """
    made = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    for name in (f"{NORM}weight", f"{NORM}bias"):
        made[name] *= design.scale
    made[f"{FIRST}fc1.weight"] /= design.scale
    width = made[f"{FIRST}fc1.weight"].shape[1]
    tokens = design.scale * first_layer(network, public, "mlp").reshape(-1, width)
    number = int(design.share * len(made[f"{FIRST}fc1.weight"]))
    neurons = _least_used(made, tokens)[:number]
    rng = np.random.default_rng(design.seed)
    whitened, constant = _whitening(tokens), _constant(tokens, design.evenness)
    unread = _unread(tokens)
    far = design.above / (num_images * network.grid[0] * network.grid[1])
    signs = rng.choice([-1.0, 1.0], width)

    def mark(direction: Floats) -> float:
        """What so many of the client's tokens exceed, in shares of the mean token."""
        return float(np.quantile(tokens @ direction / (tokens @ constant), 1 - far))

    for own in neurons:
        direction = _drawn(whitened, rng)
        if design.spread:
            length = design.spread * abs(mark(direction)) * np.linalg.norm(constant)
            aside = _drawn(unread, rng)
            direction = direction + length * aside / np.linalg.norm(aside)
        made[f"{FIRST}fc1.weight"][own] = design.sharpness * (
            direction - mark(direction) * constant
        )
        made[f"{FIRST}fc1.bias"][own] = 0
        made[f"{FIRST}fc2.weight"][:, own] = design.out * signs
    return Hidden(limit(made), neurons)


def read_hidden(exchange: Exchange, neurons: npt.NDArray[np.intp], public: Images) -> Blocks:
    """Read blocks from a client's reply to weights with hidden neurons.

    Args:
        exchange: What the coordinator sent and received.
        neurons: (K,), of `Hidden`.
        public: (k, 3, H, W), public images as the model reads them.
    """
    network = build_architecture(exchange.model, exchange.num_classes, exchange.image_size)
    load(network, exchange.sent)
    signs = np.sign(first_layer(network, public, "mlp"))
    blocks = read_blocks(public, exchange.model.invariant, network.patch_size)
    answer = ridge(zip(signs, blocks, strict=True))
    found = _signs(exchange, neurons)
    usual = signs.mean(axis=0)
    spread = np.cov((signs - usual).reshape(-1, signs.shape[-1]).T)
    within = np.linalg.inv(spread + 0.01 * np.eye(len(spread)))
    apart = found[:, None] - usual
    positions = np.einsum("npd,de,npe->np", apart, within, apart).argmin(axis=1)
    return Blocks(positions, with_one(found) @ answer)


def leading_share(weight: npt.NDArray[np.float32]) -> float:
    """(n, D) -> the largest squared singular value over the sum of all: 1 if rows are parallel."""
    values = np.linalg.svd(weight.astype(np.float64), compute_uv=False) ** 2
    return float(values[0] / values.sum())


def _signs(exchange: Exchange, neurons: npt.NDArray[np.intp]) -> Floats:
    """(n, D) of +-1: of each neuron that learnt, signs of the token that made it fire."""
    rows, biases = (
        (exchange.returned[name].astype(np.float64) - exchange.sent[name])[neurons]
        for name in (f"{FIRST}fc1.weight", f"{FIRST}fc1.bias")
    )
    moved = biases != 0
    signs: Floats = np.sign(rows[moved]) * np.sign(biases[moved])[:, None]
    return signs


def _least_used(made: Arrays, tokens: Floats) -> npt.NDArray[np.intp]:
    """Neurons of the first MLP by how much what they write into public tokens varies."""
    seen = tokens @ made[f"{FIRST}fc1.weight"].T + made[f"{FIRST}fc1.bias"]
    fired = gelu(torch.from_numpy(seen)).numpy()
    return np.argsort(fired.std(axis=0) * np.linalg.norm(made[f"{FIRST}fc2.weight"], axis=0))


def _whitening(tokens: Floats) -> Floats:
    """(D, r), from r numbers of variance 1 each to directions of token space."""
    values, vectors = np.linalg.eigh(np.cov(tokens.T))
    kept = values > _KEPT * values.max()
    whitening: Floats = vectors[:, kept] / np.sqrt(values[kept])
    return whitening


def _drawn(space: Floats, rng: np.random.Generator) -> Floats:
    """(D, r) -> (D,), what a random unit vector of r numbers is there."""
    drawn = rng.normal(size=(space.shape[1],))
    direction: Floats = space @ (drawn / np.linalg.norm(drawn))
    return direction


def _unread(tokens: Floats) -> Floats:
    """(D, D - r), directions that tokens hardly vary in, orthogonal to the mean token."""
    values, vectors = np.linalg.eigh(np.cov(tokens.T))
    low = vectors[:, values <= _KEPT * values.max()]
    mean = low.T @ tokens.mean(axis=0)
    apart: Floats = low - np.outer(low @ mean, mean) / (mean @ mean)
    return apart


def _constant(tokens: Floats, evenness: float) -> Floats:
    """(D,), of which the product with a token is near 1."""
    mean, spread = tokens.mean(axis=0), np.cov(tokens.T)
    found = np.linalg.solve(spread + evenness * spread.max() * np.eye(len(spread)), mean)
    constant: Floats = found / (mean @ found)
    return constant
