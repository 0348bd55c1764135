"""Weights that make a client's update hold its images; see `imprint` for the method."""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fl_ppseg.audit.attacks.inputs import Floats, Images, embedded, first_layer, load
from fl_ppseg.audit.attacks.neurons import gaps, is_held, mlps, moved, num_thresholds, rows
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import POSITION_TENSOR
from fl_ppseg.system.arrays import Arrays

_LENGTH: Final = 1e5
"""Of a position embedding: content is so short beside it that no block is taken for another."""
_CODE: Final = 24
"""Channels whose direction names the block, at most."""
_LEAST_WIDTH: Final = 16
"""Channels that leave some for content."""
_SPREAD: Final = 0.03
"""Deviation of the number among public images, in units of _LENGTH: LayerNorm hardly sees it."""
_STEEP: Final = 1e4
"""How sharply a neuron tells blocks and numbers apart."""
_LOUD: Final = 1e5
"""Weight of what the first layer attends to; steps of AdamW are small beside it."""
_QUIET: Final = 1e-8
"""Factor on the last normalisation and on the classifier of every head."""
_OUT: Final = 1e-6
"""What a neuron that fires adds to its token."""
_LAST_NORMS: Final = re.compile(r"(.*(?:stages\.conv|branches\.\d+\.))(\d+)\.norm\.(?:weight|bias)")


class _Channels(NamedTuple):
    """What each channel of a token is used for."""

    code: npt.NDArray[np.intp]
    """They name the block; what they hold sums to 0."""
    length: npt.NDArray[np.intp]
    """Two that hold _LENGTH and its opposite: thresholds are weights of these."""
    number: npt.NDArray[np.intp]
    """Two that hold the image's number and its opposite."""
    content: npt.NDArray[np.intp]
    """All others."""


def is_plain(network: SETR) -> bool:
    """Whether the model is of the form that such weights are made for: wide enough, with one matrix
    for queries, keys and values, MLPs of two, and nothing between tokens and the first layer."""
    names = network.state_dict()
    blocks = (f"backbone.blocks.{k}." for k in range(len(network.backbone.blocks)))
    return (
        network.backbone.embed_dim >= _LEAST_WIDTH
        and not any(name.startswith("backbone.norm_pre.") for name in names)
        and all(_is_plain_block(block, names) for block in blocks)
    )


def _is_plain_block(block: str, tensors: Mapping[str, Tensor]) -> bool:
    wanted = ("attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")
    if not all(f"{block}{name}" in tensors for name in (*wanted, "mlp.fc1.bias")):
        return False
    first, second = (tensors[f"{block}mlp.{name}.weight"] for name in ("fc1", "fc2"))
    return first.shape[0] == second.shape[1]  # else it is gated


def imprinted(network: SETR, public: Images, earlier: Sequence[Exchange] = ()) -> Arrays:
    """Weights that show their client's images; the patch embedding stays as it is.

    Args:
        network: A model with the weights of the round.
        public: (k, 3, H, W), images of its own, as the model reads them.
        earlier: What the same client replied to such weights.
    """
    made = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    tokens = embedded(network, public)
    channels, num_blocks = _channels(tokens), tokens.shape[1]
    silence(made)
    _name_blocks(made, channels, num_blocks)
    _number_images(made, channels, tokens, len(earlier) // 2)
    numbered = copy.deepcopy(network)
    load(numbered, made)
    numbers = first_layer(numbered, public, "norm2")[..., channels.number[0]].mean(axis=1)
    thresholds = _quantiles(numbers, num_thresholds(made, num_blocks))
    if len(earlier) % 2:
        thresholds = _finer(earlier[-1], channels, num_blocks)
    _lay(made, channels, num_blocks, thresholds)
    return made


def _channels(tokens: Floats) -> _Channels:
    """Names and numbers take the channels in which content is the least."""
    order = np.argsort(tokens.std(axis=(0, 1)))
    num_code = min(_CODE, len(order) // 4)
    code, length, number, content = np.split(order, np.cumsum([num_code, 2, 2]))
    return _Channels(code, length, number, np.sort(content))


def silence(made: Arrays) -> None:
    """No layer does anything, and gradients are small; normalisations only normalise."""
    for name, value in made.items():
        if re.search(r"blocks\.\d+\.(attn|mlp)\.|_token$|blocks\.\d+\.norm\d\.bias", name):
            value[...] = 0
        elif re.search(r"blocks\.\d+\.(norm\d\.weight|ls\d\.gamma)", name):
            value[...] = 1
    for name in (*_last_norms(made), *(n for n in made if n.endswith("classifier.conv.weight"))):
        made[name] *= _QUIET


def _last_norms(names: Iterable[str]) -> list[str]:
    """Of a head's numbered normalisations, those that its classifier reads."""
    found = [match for match in map(_LAST_NORMS.fullmatch, names) if match]
    last = {m[1]: max(int(other[2]) for other in found if other[1] == m[1]) for m in found}
    return [match[0] for match in found if int(match[2]) == last[match[1]]]


def _name_blocks(made: Arrays, channels: _Channels, num_blocks: int) -> None:
    """Give every block a direction, and tokens of no block none; all are as long."""
    positions = made[POSITION_TENSOR]
    positions[...] = 0
    positions[0, :, channels.length] = np.array([[_LENGTH], [-_LENGTH]])
    positions[0, -num_blocks:, channels.code] = _LENGTH * _directions(num_blocks, channels).T


def _directions(num_blocks: int, channels: _Channels) -> Floats:
    """(N, code), unit vectors of sum 0."""
    drawn = np.random.default_rng(0).normal(size=(num_blocks, len(channels.code)))
    drawn -= drawn.mean(axis=1, keepdims=True)
    unit: Floats = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def _number_images(made: Arrays, channels: _Channels, tokens: Floats, rank: int) -> None:
    """The first layer writes the image's number into every token.

    Args:
        made: Weights.
        channels: Of the tokens.
        tokens: (k, N, D) of public images.
        rank: Of the direction, by how much public images differ along it.
    """
    width = tokens.shape[-1]
    means = tokens.mean(axis=1)[:, channels.content]
    usual = means.mean(axis=0)
    directions = np.linalg.svd(means - usual, full_matrices=False)[2]
    direction = directions[rank % max(len(means) - 1, 1)]  # k images differ along k - 1
    deviation = max(((means - usual) @ direction).std(), 1e-9)
    norm = _LENGTH * (3 / width) ** 0.5  # what LayerNorm divides by
    attention, value = "backbone.blocks.0.attn.", 2 * width  # the first channel of the values
    made[f"{attention}qkv.weight"][value, channels.content] = _LOUD * direction
    if f"{attention}qkv.bias" in made:
        made[f"{attention}qkv.bias"][value] = -_LOUD * (usual @ direction) / norm
    gain = _SPREAD * _LENGTH * norm / (_LOUD * deviation)
    made[f"{attention}proj.weight"][channels.number, 0] = (gain, -gain)


def _quantiles(numbers: Floats, num_thresholds: int) -> Floats:
    """(T,), thresholds at the numbers of public images; the first is far below all of theirs."""
    ordered = np.quantile(numbers, np.arange(num_thresholds) / num_thresholds)
    ordered[:1] -= np.ptp(numbers)
    return ordered


def _finer(earlier: Exchange, channels: _Channels, num_blocks: int) -> Floats:
    """(T,), thresholds within the gaps that held images."""
    constant = rows(earlier.sent, "weight", num_blocks)[:, 0, channels.length[1]]
    edges = (2 * constant / _STEEP - 1) * _LENGTH
    if not len(edges):
        return edges
    ends = np.append(edges[1:], edges[-1] + np.ptp(edges))
    held = np.flatnonzero(is_held(gaps(moved(earlier, "bias", num_blocks))))
    parts = len(edges) // max(len(held), 1) - 1
    if parts < 1:
        return edges
    divided = [np.linspace(edges[gap], ends[gap], parts + 1) for gap in held]
    found = np.unique(np.concatenate(divided))[: len(edges)]
    return np.pad(found, (0, len(edges) - len(found)), mode="edge")


def _lay(made: Arrays, channels: _Channels, num_blocks: int, thresholds: Floats) -> None:
    """Set the neurons over the MLPs of all layers: by threshold, then by block."""
    directions = _directions(num_blocks, channels)
    layers, outs = ([made[name] for name in mlps(made, f"fc{k}.weight")] for k in (1, 2))
    signs = np.sign(np.random.default_rng(1).normal(size=len(outs[0])))
    for neuron in range(len(thresholds) * num_blocks):
        number, block = divmod(neuron, num_blocks)
        layer, row = divmod(neuron, len(layers[0]))
        weight, constant = layers[layer][row], (1 + thresholds[number] / _LENGTH) / 2
        weight[channels.code] = _STEEP * directions[block]
        weight[channels.length] = (-_STEEP * constant, _STEEP * constant)
        weight[channels.number] = (_STEEP / 2, -_STEEP / 2)
        outs[layer][:, row] = _OUT * signs
