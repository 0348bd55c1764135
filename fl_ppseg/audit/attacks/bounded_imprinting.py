"""Weights within a trust region under which an update reveals images; see `bounded_imprint`."""

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fl_ppseg.audit.attacks.imprinting import is_plain, silence
from fl_ppseg.audit.attacks.inputs import Floats, Images, embedded, first_layer, load
from fl_ppseg.audit.attacks.neurons import mlps
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import EMBEDDING_TENSORS, POSITION_TENSOR
from fl_ppseg.system.arrays import Arrays

Limit = Callable[[Arrays], Arrays]
"""Weights -> the nearest that the client's node accepts."""
Range = tuple[float, float]
COARSE: Final[Range] = (-2.2, 2.2)
"""Numbers of nearly all images, in deviations of public ones."""

_CODE: Final = 32
"""Channels that hold the code of a block."""
_LENGTH: Final = 8
"""Pairs of channels that hold a constant: thresholds are weights on these."""
_NUMBER: Final = 2
"""Pairs of channels that hold the image's number and its negative."""
_TRIES: Final = 60_000
"""Random codes to choose from."""
_CODED: Final = 1.3
"""Size of a position embedding in the channels of the code; twice that in those of the length."""
_READ: Final = 1.2
"""A neuron's weight on the code and the number."""
_STEEP: Final = 2.5
"""Weight of the normalisation before an MLP."""
_COPIES: Final = 16
"""Channels of the attention that hold the number."""
_VALUE: Final = 0.3
"""Largest weight of these channels."""
FAINT: Final = 3e-3
"""Weights of the layers that make gradients small."""
_OUT: Final = 1e-2
"""Output weight of a neuron."""
_USED: Final = 0.85
"""Share of the range of numbers that neurons of other blocks do not fire for."""
_ATTENTION: Final = "backbone.blocks.0.attn."
_HEAD: Final = ("conv1.conv", "conv1.norm", "conv2.conv", "conv2.norm")


class Channels(NamedTuple):
    """What each channel of a token is used for; content varies least in all but the last."""

    code: npt.NDArray[np.intp]
    more: npt.NDArray[np.intp]
    """Holds the constant."""
    less: npt.NDArray[np.intp]
    """Holds its negative."""
    number: npt.NDArray[np.intp]
    negative: npt.NDArray[np.intp]
    """Holds the negative of the number."""
    sink: npt.NDArray[np.intp]
    """Two channels that neurons write into."""
    content: npt.NDArray[np.intp]


class _Numbers(NamedTuple):
    """What neurons see of public images, before the weights that set thresholds."""

    offset: Floats
    """(N,), of a number of `middle`, in each block."""
    slope: float
    """By a deviation of public images."""
    length: Floats
    """(N,), the constant."""


def applies_to(network: SETR) -> bool:
    """Whether weights can be made for the model: wide enough, plain transformer blocks, a naive or
    PUP head of two convolutions with group normalisation, no other heads."""
    names, num_blocks = network.state_dict(), network.grid[0] * network.grid[1]
    needed = _CODE + 2 * (_LENGTH + _NUMBER) + 2
    return (
        is_plain(network)
        and network.backbone.embed_dim >= 2 * needed
        and all(f"decoder.stages.{name}.weight" in names for name in _HEAD)
        and not any("conv3" in name or "running" in name for name in names)
        and not len(network.auxiliary)
        and len(names[mlps(names, "fc1.weight")[0]]) >= 2 * num_blocks
    )


def bounded_imprinted(
    network: SETR,
    public: Images,
    limit: Limit,
    asked: Range = COARSE,
    is_kept: bool = False,
    faint: float = FAINT,
) -> Arrays:
    """Craft weights for a round of a client.

    Args:
        network: A model that `applies_to` accepts, with the weights of round 0.
        public: (k, 3, H, W), public images as the model reads them.
        limit: To what the client's node accepts in this round.
        asked: Range of numbers to tell apart, in deviations of public images.
        is_kept: Whether the patch embedding does not travel.
        faint: Weights of the layers that make gradients small; larger ones stand more noise.

    Returns:
        The weights, within the limit.
    """
    made = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    tokens = embedded(network, public)
    channels, num_blocks = channels_of(tokens), tokens.shape[1]
    silence(made)
    _make_faint(made, network, channels, faint)
    _name_blocks(made, channels, num_blocks)
    if not is_kept:  # no content in the other channels
        for name in EMBEDDING_TENSORS:
            made[name][np.concatenate(channels[:-1])] = 0
    made = limit(made)
    low, high = asked
    numbers = _number_images(made, network, public, channels, asked, limit)
    made = limit(made)
    layers = mlps(made, "fc1.weight")
    per_layer = len(made[layers[0]]) // num_blocks
    marks = np.linspace(low, high, num_gaps(made, num_blocks) + 1) - (low + high) / 2
    for index, name in enumerate(layers):
        own = marks[index * (per_layer - 1) :][:per_layer]  # a layer's last is the next one's first
        out = made[name.replace("fc1", "fc2")]
        _lay(made[name], out, channels, numbers, own, (-1) ** index)
    return limit(made)


def num_gaps(arrays: Arrays, num_blocks: int) -> int:
    """Pairs of neighbouring thresholds in all layers."""
    return sum(len(arrays[name]) // num_blocks - 1 for name in mlps(arrays, "fc1.weight"))


def channels_of(tokens: Floats) -> Channels:
    """Use of the channels, by the spread of public tokens (k, N, D) without their positions."""
    order = np.argsort(tokens.std(axis=(0, 1)), kind="stable")
    sizes = (_CODE, _LENGTH, _LENGTH, _NUMBER, _NUMBER, 2)
    parts = np.split(order, np.cumsum(sizes))
    return Channels._make([*parts[:-1], np.sort(parts[-1])])


def _make_faint(made: Arrays, network: SETR, channels: Channels, faint: float) -> None:
    """Give layers from the last normalisation on weights that make gradients of tokens small."""
    for name in made:
        if name.startswith("decoder."):
            made[name] = network.state_dict()[name].numpy().copy()
    rest = np.concatenate(channels[1:])
    last = f"norms.{len(network.norms) - 1}"
    made[f"{last}.weight"][rest], made[f"{last}.bias"][...] = faint, 0
    for name in ("decoder.stages.conv1.conv.weight", "decoder.classifier.conv.weight"):
        signed = faint * np.where(made[name] < 0, -1, 1)
        columns = rest if "conv1" in name else np.arange(signed.shape[1])
        made[name][:, columns] = signed[:, columns]
    for number, bias in ((1, 1.0), (2, 0.0)):
        made[f"decoder.stages.conv{number}.norm.weight"][...] = faint
        made[f"decoder.stages.conv{number}.norm.bias"][...] = bias


def _name_blocks(made: Arrays, channels: Channels, num_blocks: int) -> None:
    """Write codes and length into position embeddings and the first attention's bias."""
    for name, value in made.items():
        if name.endswith("norm2.weight"):
            value[...] = _STEEP
    positions, bias = made[POSITION_TENSOR], made[f"{_ATTENTION}proj.bias"]
    positions[...] = 0
    positions[0, -num_blocks:, channels.code] = _CODED * codes(num_blocks)[0].T
    for used, sign in ((channels.more, 1), (channels.less, -1)):
        positions[0, :, used] = bias[used] = sign * _CODED


@lru_cache(maxsize=4)
def codes(num_blocks: int) -> tuple[Floats, int]:
    """(N, 32) of +-1, each of sum 0, and the largest inner product of two of them."""
    rng = np.random.default_rng(0)
    half = np.repeat([1, -1], _CODE // 2)
    pool = np.stack([rng.permutation(half) for _ in range(_TRIES)])
    for most in range(_CODE // 4, _CODE, 4):
        left, chosen = pool, list[npt.NDArray[np.int64]]()
        while len(left) and len(chosen) < num_blocks:
            chosen.append(left[0])
            left = left[1:][left[1:] @ left[0] <= most]
        if len(chosen) == num_blocks:
            return np.array(chosen, np.float64), most
    raise ValueError(f"expected at most some thousand blocks, got {num_blocks}")


def _number_images(
    made: Arrays,
    network: SETR,
    public: Images,
    channels: Channels,
    asked: Range,
    limit: Limit,
) -> _Numbers:
    """Make the first attention write the image's number into every token, in place.

    Args:
        made: Weights.
        network: Model.
        public: (k, 3, H, W), public images.
        channels: Use of the channels.
        asked: Range of numbers to tell apart, in deviations of public images.
        limit: To what the node accepts.
    """
    probe, width = copy.deepcopy(network), made[POSITION_TENSOR].shape[-1]
    load(probe, made)
    means = first_layer(probe, public, "attn")[..., channels.content].mean(axis=1)
    usual = means.mean(axis=0)
    direction = np.linalg.svd(means - usual, full_matrices=False)[2][0]
    along = (means - usual) @ direction
    if (along**3).sum() < 0:  # one sign for every round
        along, direction = -along, -direction
    deviation, (low, high) = max(along.std(), 1e-9), asked
    free = (_CODE - codes(made[POSITION_TENSOR].shape[1])[1]) / 2 - 1
    gain = _USED * free * _CODED / max(high - low, 1e-6) / _NUMBER
    size = np.abs(direction).max() / _VALUE
    values = slice(2 * width, 2 * width + _COPIES)
    made[f"{_ATTENTION}qkv.weight"][values, channels.content] = direction / size
    middle = usual @ direction + (low + high) / 2 * deviation
    if f"{_ATTENTION}qkv.bias" in made:
        made[f"{_ATTENTION}qkv.bias"][values] = -middle / size
    for used, sign in ((channels.number, 1), (channels.negative, -1)):
        made[f"{_ATTENTION}proj.weight"][used, :_COPIES] = sign * gain * size / deviation / _COPIES
    load(probe, limit(made))
    seen = first_layer(probe, public, "norm2")
    score = seen[..., channels.number].sum(axis=-1) - seen[..., channels.negative].sum(axis=-1)
    score += np.einsum("knc,nc->kn", seen[..., channels.code], codes(seen.shape[1])[0])
    length = seen[..., channels.more].sum(axis=-1) - seen[..., channels.less].sum(axis=-1)
    slope = 2 * _NUMBER * gain
    expected = slope * (along / deviation - (low + high) / 2)
    return _Numbers((score - expected[:, None]).mean(axis=0), slope, length.mean(axis=0))


def _lay(
    weights: np.ndarray,
    out: np.ndarray,
    channels: Channels,
    numbers: _Numbers,
    marks: Floats,
    sign: int,
) -> None:
    """Write a layer's neurons, by threshold, then by block, in place.

    Args:
        weights: (R, D), of its first linear map.
        out: (D, R), of its second.
        channels: Use of the channels.
        numbers: What neurons see.
        marks: (T,), thresholds, in deviations from the middle of the range.
        sign: Of the output.
    """
    num_blocks = len(numbers.offset)
    for index, mark in enumerate(marks):
        rows = slice(index * num_blocks, (index + 1) * num_blocks)
        constant = _READ * (numbers.offset + numbers.slope * mark) / numbers.length
        weights[rows, channels.code] = _READ * codes(num_blocks)[0]
        weights[rows, channels.number], weights[rows, channels.negative] = _READ, -_READ
        weights[rows, channels.more] = -constant[:, None]
        weights[rows, channels.less] = constant[:, None]
        out[channels.sink, rows] = sign * _OUT * np.array([[1], [-1]])
