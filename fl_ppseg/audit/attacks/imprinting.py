"""Weights under which a client's update reveals its images; see `imprint` for the method."""

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
from fl_ppseg.setr.names import PIXEL_HEAD_PREFIX, POSITION_TENSOR
from fl_ppseg.system.arrays import Arrays

_LENGTH: Final = 1e5
"""Norm of a position embedding: far above that of content, so that blocks stay distinct."""
_CODE: Final = 24
"""Most channels whose direction identifies the block."""
_LEAST_WIDTH: Final = 16
"""Width from which some channels are left for content."""
_SPREAD: Final = 0.03
"""Deviation of the number over public images, in _LENGTH: small enough for LayerNorm to ignore."""
_STEEP: Final = 1e4
"""Scale of a neuron's input: how sharply it separates blocks and numbers."""
_LOUD: Final = 1e5
"""Weight of the first attention's output; steps of AdamW are small relative to it."""
_QUIET: Final = 1e-8
"""Factor on the last normalisation and on the classifier of every head."""
_CROWDED: Final = 2
"""Images in a gap, in the mean, from which each round divides another part of the numbers."""
_OUT: Final = 1e-6
"""Output weight of a neuron that fires."""
_LAST_NORMS: Final = re.compile(r"(.*(?:stages\.conv|branches\.\d+\.))(\d+)\.norm\.(?:weight|bias)")


class _Channels(NamedTuple):
    """What each channel of a token is used for."""

    code: npt.NDArray[np.intp]
    """Channels that identify the block; their values sum to 0."""
    length: npt.NDArray[np.intp]
    """Two channels that hold _LENGTH and -_LENGTH: thresholds are weights on these."""
    number: npt.NDArray[np.intp]
    """Two channels that hold the image's number and its negative."""
    content: npt.NDArray[np.intp]
    """All other channels."""


def is_plain(network: SETR) -> bool:
    """Whether the attack applies to the model: wide enough, with one matrix for queries, keys and
    values, MLPs of two layers, and no layer between the tokens and the first encoder layer."""
    names = network.state_dict()
    blocks = (f"backbone.blocks.{k}." for k in range(len(network.backbone.blocks)))
    return (
        network.backbone.embed_dim >= _LEAST_WIDTH
        and not any(name.startswith("backbone.norm_pre.") for name in names)
        and all(_is_plain_block(block, names) for block in blocks)
    )


def _is_plain_block(block: str, tensors: Mapping[str, Tensor]) -> bool:
    needed = ("attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")
    if not all(f"{block}{name}" in tensors for name in (*needed, "mlp.fc1.bias")):
        return False
    first, second = (tensors[f"{block}mlp.{name}.weight"] for name in ("fc1", "fc2"))
    return first.shape[0] == second.shape[1]  # else it is gated


def imprinted(
    network: SETR, public: Images, earlier: Sequence[Exchange] = (), num_images: int = 1
) -> Arrays:
    """Craft weights under which an update reveals images; the patch embedding is unchanged.

    Args:
        network: A model with the weights of the round.
        public: (k, 3, H, W), public images as the model reads them.
        earlier: Exchanges with the same client, or clients, over such weights.
        num_images: Images that the clients train on, as far as the coordinator expects. If they
            are more than there are gaps, each round divides another part of the numbers.
    """
    made = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    tokens = embedded(network, public)
    channels, num_blocks = _channels(tokens), tokens.shape[1]
    silence(made)
    _name_blocks(made, channels, num_blocks)
    num = num_thresholds(made, num_blocks)
    num_windows = _num_windows(num, num_images)
    rank, window = divmod(len(earlier), max(num_windows, 2))
    _number_images(made, channels, tokens, rank)
    numbered = copy.deepcopy(network)
    load(numbered, made)
    numbers = first_layer(numbered, public, "norm2")[..., channels.number[0]].mean(axis=1)
    if num_windows > 1:
        thresholds = _quantiles(numbers, num, (window, num_windows))
    elif window:
        thresholds = _finer(earlier[-1], channels, num_blocks)
    else:
        thresholds = _quantiles(numbers, num)
    _lay(made, channels, num_blocks, thresholds)
    return made


def content_channels(network: SETR, public: Images) -> npt.NDArray[np.intp]:
    """Channels of a token that hold content under made weights; arguments as in `imprinted`."""
    return _channels(embedded(network, public)).content


def _channels(tokens: Floats) -> _Channels:
    """Assign block codes and numbers to the channels in which content varies least."""
    order = np.argsort(tokens.std(axis=(0, 1)))
    num_code = min(_CODE, len(order) // 4)
    code, length, number, content = np.split(order, np.cumsum([num_code, 2, 2]))
    return _Channels(code, length, number, np.sort(content))


_SILENT: Final = r"blocks\.\d+\.(attn|mlp)\.|_token$|blocks\.\d+\.norm\d\.bias|^" + re.escape(
    PIXEL_HEAD_PREFIX
)
"""Layers that would answer of themselves."""


def silence(made: Arrays) -> None:
    """Zero all layers and the pixel head, and scale the other heads down; normalisations get weight
    1 and bias 0."""
    for name, value in made.items():
        if re.search(_SILENT, name):
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
    """Give the position embedding of every block its own direction; all have the same norm."""
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
    """Make the first layer write the image's number into every token.

    Args:
        made: Weights.
        channels: Use of the tokens' channels.
        tokens: (k, N, D) of public images.
        rank: Rank of the direction by the variance of public images along it.
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


def _num_windows(num_thresholds: int, num_images: int) -> int:
    """Parts of the numbers of which each has a gap for every image; 1 if one round has them."""
    if num_images <= _CROWDED * num_thresholds:
        return 1
    return -(-num_images // max(num_thresholds - 1, 1))  # the last gap holds all that is above


def _quantiles(numbers: Floats, num_thresholds: int, part: tuple[int, int] = (0, 1)) -> Floats:
    """(T,), thresholds at quantiles of the public images' numbers; the first far below all.

    Args:
        numbers: Of public images.
        num_thresholds: T.
        part: (k, n), the k-th of n parts of the numbers, equally likely.
    """
    number, num = part
    shares = np.arange(num_thresholds) / (num_thresholds if num == 1 else num_thresholds - 1)
    ordered = np.quantile(numbers, np.minimum((number + shares) / num, 1.0))
    if not number:
        ordered[:1] -= np.ptp(numbers)
    return ordered


def _finer(earlier: Exchange, channels: _Channels, num_blocks: int) -> Floats:
    """(T,), thresholds that divide the gaps that held images."""
    constant = rows(earlier.sent, "weight", num_blocks)[:, 0, channels.length[1]]
    edges = (2 * constant / _STEEP - 1) * _LENGTH
    if not len(edges):
        return edges
    ends = np.append(edges[1:], edges[-1] + np.ptp(edges))
    held = np.flatnonzero(is_held(gaps(moved(earlier, "bias", num_blocks))))
    parts = len(edges) // max(len(held), 1) - 1
    if parts < 1 or not len(held):
        return edges
    divided = [np.linspace(edges[gap], ends[gap], parts + 1) for gap in held]
    found = np.unique(np.concatenate(divided))[: len(edges)]
    return np.pad(found, (0, len(edges) - len(found)), mode="edge")


def _lay(made: Arrays, channels: _Channels, num_blocks: int, thresholds: Floats) -> None:
    """Write the neurons into the MLPs of all layers, by threshold, then by block."""
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
