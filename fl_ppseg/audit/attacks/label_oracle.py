"""Crafted weights under which confusion counts reveal where each class lies in a label map.

Adversary: an active coordinator that has nodes evaluate crafted weights, and reads the counts that
every evaluation returns: (true class, predicted class). It holds public images, no key. The
prediction need not depend on the image: it can encode a place, and the column of that prediction
then holds the true classes of that place.

Method:

- Position embeddings hold a code for each token, a bin of places or `elsewhere`; all layers are
  zero but the first attention, which averages all tokens of an image with equal weight.
- That attention writes one number into every token of an image, along a direction in which public
  images differ. Under the first weights the prediction depends on this number alone
  (`Oracle.counted`): the columns are a histogram of the images' numbers. Under all later ones only
  images between two numbers predict bins (`Oracle.asked`); others get columns of their own.
- The convolutions of the head copy the codes; the classifier predicts the bin whose code is
  strongest at a position. Which position of a label map predicts which bin does not depend on the
  image, so the coordinator finds it by running the model itself (`Oracle.answers`).

Must succeed: to the pixel, if the coordinator may choose a model with many classes and small
patches. With the model and the classes that owners agreed to, a request has as many bins as there
are classes, and the number of requests decides. Must fail: if no evaluation is answered.
"""

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_ppseg.audit.attacks.imprinting import is_plain, silence
from fl_ppseg.audit.attacks.inputs import Floats, Images, embedded, first_layer, load
from fl_ppseg.audit.attacks.label_head import pass_on
from fl_ppseg.learning.evaluation import resized_logits
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import POSITION_TENSOR
from fl_ppseg.system.arrays import Arrays

_LENGTH: Final = 1e5
"""Norm of a position embedding: far above that of content, so that places stay distinct."""
_LOUD: Final = 1e5
"""Weight of the first attention's output."""
_SPREAD: Final = 0.03
"""Deviation of the number over public images, in _LENGTH: small enough for LayerNorm to ignore."""
_ELSEWHERE: Final = 0.5
"""Weight of `elsewhere` against a bin: bins then end halfway to the next token."""
_SURE: Final = 1e3
"""Weight of the number against the place: images outside the interval never predict a bin."""
_PILOT: Final = 2.0
"""Scale of the pilot against codes of norm 1: it dominates what normalisations divide by."""
_LEAST_CONTENT: Final = 4
"""Channels left for content."""
_NEVER: Final = -1e6
"""Bias of a class that is never predicted: as large a weight as nodes accept."""
_MOST_CODE: Final = 24
"""Most channels of a code."""
_NUM_FIXED: Final = 3
"""Channels of the head beside the code: number, pilot, elsewhere. A token has two channels for
each, for LayerNorm removes the mean."""

Bins = npt.NDArray[np.int64]
"""(grid_h, grid_w), the bin of each token from 1; 0: elsewhere."""


@dataclass(frozen=True)
class Question:
    """What one request measures."""

    bins: Bins
    low: float = -np.inf
    high: float = np.inf
    """Only images whose number lies between `low` and `high` predict bins."""


def is_readable(network: SETR) -> bool:
    """Whether the attack applies to the model: its backbone `is_plain`, its head naive or PUP."""
    names = network.state_dict()
    needed = ("decoder.stages.conv1.conv.weight", "decoder.classifier.conv.weight")
    if not (is_plain(network) and all(name in names for name in needed)):
        return False
    channels = names[needed[1]].shape[1]
    spare = network.backbone.embed_dim - 2 * _NUM_FIXED - _LEAST_CONTENT
    return bool(min(channels - _NUM_FIXED, spare) >= 2)


class Oracle:
    """Crafts weights for one architecture, and knows which place predicts which bin.

    Args:
        network: A model that `is_readable`; its patch embedding is kept.
        public: (k, 3, H, W), public images as the model reads them, two or more.
    """

    def __init__(self, network: SETR, public: Images) -> None:
        self._network, self._public = copy.deepcopy(network).eval(), public
        self.grid = network.grid
        made = {name: value.numpy().copy() for name, value in network.state_dict().items()}
        self.num_classes = len(made["decoder.classifier.conv.weight"])
        """Classes of the model, and columns of its counts."""
        silence(made)
        for name in (name for name in made if name.startswith("norms.")):
            made[name][...] = name.endswith(".weight")
        made["decoder.classifier.conv.weight"][...] = 0
        self._lay_channels(made, embedded(network, public))
        pairs = (self._number, self._pilot, self._elsewhere)
        pass_on(made, self._network, pairs, self._code)
        self._base = made
        self._number_images()

    @property
    def num_bins(self) -> int:
        """Bins of a request: classes less one for elsewhere and two for other images."""
        return self.num_classes - 3

    @cached_property
    def numbers(self) -> Floats:
        """(k,) the numbers of the public images, with mean 0 and deviation 1."""
        return self._numbers_of(self._base) / (_SPREAD * _LENGTH)

    def counted(self, edges: Floats) -> Arrays:
        """Craft weights that predict, everywhere, how many edges lie below the image's number.

        Args:
            edges: (E,), rising, fewer than there are classes.
        """
        made = self._placed(np.zeros(self.grid, np.int64))
        shown, slope = self._shown_as(edges, self._features(made))
        num = len(edges) + 1
        rows, constants = _classifier(made)
        constants[:] = _NEVER
        rows[:num, 0] = np.arange(num) / slope
        constants[:num] = -np.cumsum([0.0, *(shown / slope)])
        return made

    def asked(self, question: Question) -> Arrays:
        """Craft weights that predict the bin of each position: class 0 for elsewhere, then the
        bins, then one class for images of lower and one for images of higher numbers."""
        made = self._placed(question.bins)
        features = self._features(made)
        rows, constants = _classifier(made)
        constants[:] = _NEVER
        scale, shift = self._code_read(features, self._codes(question.bins))
        rows[0, 2], constants[0] = _ELSEWHERE * scale[0], _ELSEWHERE * shift[0]
        names = self._names[: int(question.bins.max())]
        for number, name in enumerate(names, 1):
            rows[number, 3 : 3 + len(name)] = name * scale[1:]
            constants[number] = name @ shift[1:]
        ends = np.array([question.low, question.high])
        shown, slope = self._shown_as(np.where(np.isfinite(ends), ends, 0.0), features)
        for column, side, end in ((1, -1, 0), (2, 1, 1)):
            if np.isfinite(ends[end]):
                rows[self.num_bins + column, 0] = side * _SURE / slope
                constants[self.num_bins + column] = -side * _SURE * shown[end] / slope
        return made

    def answers(self, made: Arrays, size: tuple[int, int]) -> Bins:
        """(h, w), the bin that is predicted at each place of a label map of this size."""
        load(self._network, made)
        with torch.inference_mode():
            logits = resized_logits(self._network, torch.from_numpy(self._public[:1]), size)
            found: Bins = logits[0, : self.num_bins + 1].argmax(dim=0).numpy()
        return found

    def _lay_channels(self, made: Arrays, tokens: Floats) -> None:
        """Assign codes to the channels in which content varies least."""
        order = np.argsort(tokens.std(axis=(0, 1)), kind="stable")
        channels = made["decoder.classifier.conv.weight"].shape[1]
        spare = len(order) - 2 * _NUM_FIXED - _LEAST_CONTENT
        width = min(channels - _NUM_FIXED, spare, max(self.num_bins, 2))
        width = width if self.num_bins <= width else min(width, _MOST_CODE)
        ends = np.cumsum([2, 2, 2, width])
        self._number, self._pilot, self._elsewhere, self._code, rest = np.split(order, ends)
        self._content = np.sort(rest)
        self._names = _directions(self.num_bins, width)

    def _number_images(self) -> None:
        """Make the first layer write an image's number into all of its tokens."""
        tokens, width = embedded(self._network, self._public), self._network.backbone.embed_dim
        means = tokens.mean(axis=1)[:, self._content]
        direction = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)[2][0]
        attention = "backbone.blocks.0.attn."
        made = self._base = self._placed(np.zeros(self.grid, np.int64))
        made[f"{attention}qkv.weight"][2 * width, self._content] = _LOUD * direction
        silent = self._numbers_of(made)
        plus, minus = self._number
        made[f"{attention}proj.weight"][[plus, minus], 0] = 1, -1
        loud = self._numbers_of(made) - silent
        gain = _SPREAD * _LENGTH / max(float(loud.std()), 1e-9)
        made[f"{attention}proj.weight"][[plus, minus], 0] = gain, -gain
        constant = self._numbers_of(made).mean()
        made[f"{attention}proj.bias"][[plus, minus]] = -constant, constant

    def _numbers_of(self, made: Arrays) -> Floats:
        """(k,) the values in the channels of the number after the first attention."""
        load(self._network, made)
        tokens = first_layer(self._network, self._public, "norm2")
        plus, minus = self._number
        numbers: Floats = (tokens[..., plus] - tokens[..., minus]).mean(axis=1) / 2
        return numbers

    def _codes(self, bins: Bins) -> Floats:
        """(1 + width, grid_h, grid_w), 1 for tokens elsewhere, then the code of each token."""
        named = np.concatenate([np.zeros((1, len(self._code))), self._names])
        return np.concatenate([(bins == 0)[None], named[bins].transpose(2, 0, 1)])

    def _placed(self, bins: Bins) -> Arrays:
        """The weights with position embeddings of these bins, before the classifier is set."""
        made = {name: value.copy() for name, value in self._base.items()}
        elsewhere, *code = self._codes(bins).reshape(1 + len(self._code), -1)
        positions = made[POSITION_TENSOR]
        positions[...] = 0
        place = positions[0, -bins.size :]
        half = np.where(np.arange(bins.size) % self.grid[1] < self.grid[1] / 2, _PILOT, -_PILOT)
        for pair, values in ((self._pilot, half), (self._elsewhere, elsewhere / np.sqrt(2))):
            place[:, pair] = _LENGTH * np.stack([values, -values], axis=1)
        place[:, self._code] = _LENGTH * np.stack(code, axis=1)
        return made

    def _features(self, made: Arrays) -> Floats:
        """(k, C, h, w), the classifier's input on public images."""
        caught: list[Tensor] = []

        def catch(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            caught.append(arguments[0])

        load(self._network, made)
        hook = self._network.decoder.get_submodule("classifier").register_forward_pre_hook(catch)
        with torch.inference_mode():
            resized_logits(self._network, torch.from_numpy(self._public), self.grid)
        hook.remove()
        return np.asarray(caught[0].double().numpy())

    def _shown_as(self, numbers: Floats, features: Floats) -> tuple[Floats, float]:
        """The features' values at these numbers, and their mean slope per number.

        The curve is fitted: normalisation bends it, by an amount that depends on the codes.
        """
        shown = features[:, 0].mean(axis=(1, 2))
        curve = np.polynomial.Polynomial.fit(self.numbers, shown, min(2, len(shown) - 1))
        return curve(numbers), float(np.ptp(shown) / np.ptp(self.numbers))

    def _code_read(self, features: Floats, codes: Floats) -> tuple[Floats, Floats]:
        """(1 + width,) each, scale and offset from features to elsewhere and code; 0 if unused."""
        shown = features[0, 2 : 2 + len(codes)].reshape(len(codes), -1)
        size, given = features.shape[2:], torch.from_numpy(codes)[None]
        spread = functional.interpolate(given, size=size, mode="bilinear")
        expected = spread[0].numpy().reshape(len(codes), -1)
        deviation = shown - shown.mean(axis=1, keepdims=True)
        over = (deviation**2).sum(axis=1)
        is_used = over > 1e-12
        scale = np.where(is_used, (deviation * expected).sum(axis=1) / np.maximum(over, 1e-12), 0)
        return scale, np.where(is_used, expected.mean(axis=1) - scale * shown.mean(axis=1), 0)


def _classifier(made: Arrays) -> tuple[Floats, Floats]:
    """(classes, channels) and (classes,), views of the weights and biases."""
    return made["decoder.classifier.conv.weight"][:, :, 0, 0], made["decoder.classifier.conv.bias"]


def _directions(number: int, width: int) -> Floats:
    """(number, width), unit vectors of sum 0, no two alike; a simplex where they fit."""
    if number <= width:
        drawn = np.eye(width)[:number]
    else:
        drawn = np.random.default_rng(0).normal(size=(number, width))
    drawn = drawn - drawn.mean(axis=1, keepdims=True)
    unit: Floats = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit
