"""Crafted weights under which a client's update reveals the class counts of each place.

Adversary: an active coordinator that sends crafted weights for a PUP decoder, and reads the update.
It knows the optimiser and, from the public seed, the images of the first step. It holds no key and
no image of the client.

Method:

- Position embeddings hold a random code of large norm for each token, next to which content is
  negligible, and all layers are zero: the head's input is the same for every image and known
  (`LabelWeights.seen`).
- The last convolution is 0. Each class has two of its channels, of opposite sign in the classifier,
  so that all classes are predicted with equal likelihood everywhere. The gradient at a class's
  channels is the sum over places of (likelihood - truth) times the convolution's input there:
  linear equations, one per channel and tap, for the counts of the class (`LabelWeights.counts`).
- That input is so small that AdamW divides by eps, not by the size of the gradient: its steps are
  proportional to gradients.
- A clock stops training after the first step. Every position embedding has a component in the
  direction in which content is least, and the bias of the first attention cancels it. Weight decay
  shrinks the embedding and not the bias. The difference, larger than content ever is, activates the
  neurons of the first MLP; their output dominates the LayerNorm, and the negative biases before
  ReLU then let nothing pass.
- No weight is larger than `_LARGEST`, for nodes refuse larger ones.

Must succeed: a model whose last convolution has at least as many inputs times taps as places. Must
fail: without weight decay after the first two steps, or under the node's own noise.
"""

import copy
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_ppseg.audit.attacks.gradients import ADAM_EPSILON
from fl_ppseg.audit.attacks.imprinting import is_plain, silence
from fl_ppseg.audit.attacks.inputs import Floats, Images, embedded, load
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.data.pixels import to_input
from fl_ppseg.learning.reach import poly
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import POSITION_TENSOR
from fl_ppseg.system.arrays import Arrays

_LARGEST: Final = 1e6
"""Largest absolute weight that nodes accept (`clients.policy.permission.MAX_WEIGHT`)."""
_LONG: Final = 2.0**15
"""Deviation of codes, far above that of content."""
_DOUBT: Final = 5.0
"""Input that activates the clock's neurons, in units of the largest content along its direction."""
_ASLEEP: Final = 20.0
"""Least negative input of the inactive neurons: there GELU and its slope are 0 in float32."""
_SEEN: Final = 1e-9
"""Scale of the last convolution's input: so small that no other weight moves in the first step."""
_DEAD: Final = -0.3
"""Bias before ReLU, in deviations: without a code nothing passes."""
_GAIN: Final = 0.03
"""Factor of the last normalisation."""
_HELD: Final = 0.1
"""Output of the classes' channels at every place."""
_LOUD: Final = 0.3
"""Weight of the classifier: keeps the norm of the gradient below 1, where it would be clipped."""
_NORM_EPSILON: Final = 1e-5
"""torch's default in GroupNorm."""
_LEAST: Final = 1e-4
"""Smallest singular value of the equations that is used, relative to the largest."""
_ABSENT: Final = 0.75
"""Quantile over the classes: at most a quarter of them occur at one place."""
_FULL: Final = 0.6
"""Quantile over the places: at most this share of them have unlabelled pixels."""
_HEAD: Final = "decoder.stages.conv"
_CLASSIFIER: Final = "decoder.classifier.conv.weight"
_CANCEL: Final = "backbone.blocks.0.attn.proj.bias"
_MLP: Final = "backbone.blocks.0.mlp."


def is_readable(network: SETR) -> bool:
    """Whether the attack applies: `is_plain`, and a PUP head of enough channels in even groups."""
    names = network.state_dict()
    if not is_plain(network) or f"{_HEAD}2.conv.weight" not in names or _CLASSIFIER not in names:
        return False
    norm = network.get_submodule(f"{_HEAD}1.norm")
    num_classes, channels = names[_CLASSIFIER].shape[:2]
    return (
        isinstance(norm, nn.GroupNorm)
        and channels >= 2 * num_classes
        and channels // norm.num_groups % 2 == 0
    )


class LabelWeights:
    """Crafts the weights for one architecture, and reads the class counts from an update.

    Args:
        network: A model that `is_readable`; its patch embedding is kept.
        own: (k, 3, H, W), public images as the model reads them.
    """

    def __init__(self, network: SETR, own: Images) -> None:
        self._network = copy.deepcopy(network).eval()
        made = {name: value.numpy().copy() for name, value in network.state_dict().items()}
        self.num_classes = len(made[_CLASSIFIER])
        numbers = [k for k in range(1, 17) if f"{_HEAD}{k}.conv.weight" in made]
        self._last = f"{_HEAD}{numbers[-1]}"
        silence(made)
        for name in (name for name in made if name.startswith("norms.")):
            made[name][...] = name.endswith(".weight")
        self._clock, content = _quiet(embedded(network, own).reshape(-1, made[_CANCEL].size))
        self._place_codes(made, content.mean())
        self._wake(made, float(np.abs(content - content.mean()).max()))
        self._prepare_head(made, numbers)
        self.made: Arrays = made
        """The weights."""
        self._own = own[:1]
        self._look()

    def moved_to(self, made: Arrays) -> "LabelWeights":
        """A copy with nearby weights, and the input of the last convolution under them."""
        other = copy.copy(self)
        other.made = made
        other._look()
        return other

    def _look(self) -> None:
        self.seen = self._seen(self._own)  # sets the size of the logits too
        """(J, h, w), the input of the last convolution, in units of `_SEEN`."""
        kernel = self.made[f"{self._last}.conv.weight"].shape[-1]
        taps = functional.unfold(torch.from_numpy(self.seen)[None], kernel, padding=kernel // 2)[0]
        met = taps.numpy()  # (J taps, places); pseudo-inverse by the smaller Gram matrix
        self._inverse = met @ np.linalg.pinv(met.T @ met, rcond=_LEAST**2, hermitian=True)

    def counts(self, exchange: Exchange, loss_size: tuple[int, int]) -> Floats:
        """(C, h, w), the share of each class at each place, mean over the images of the first step.

        Args:
            exchange: What the coordinator sent, these weights, and received.
            loss_size: (h', w'), the resolution of the client's loss.
        """
        size = self.seen.shape[1:]
        name, used = f"{self._last}.conv.weight", 2 * self.num_classes
        moved = exchange.returned[name][:used] - exchange.sent[name][:used]
        gradients = first_gradient(moved.reshape(len(moved), -1).astype(np.float64), exchange)
        of_class = (gradients[::2] - gradients[1::2]) / 2
        told = (of_class @ self._inverse).reshape(-1, *size)
        told = told / spread_of(size, loss_size)
        # a class absent from a place has the likelihood of all labelled pixels there
        labelled = np.quantile(told, _ABSENT, axis=0)
        shares: Floats = (labelled - told) / (self.num_classes * np.quantile(labelled, _FULL))
        return shares

    def _place_codes(self, made: Arrays, content: float) -> None:
        """Give every position embedding a random code, and the clock, which the bias cancels."""
        positions, drawn = made[POSITION_TENSOR], np.random.default_rng(0)
        codes = _LONG * drawn.normal(size=positions.shape[1:])
        codes -= np.outer(codes @ self._clock, self._clock)
        length = (_LARGEST - np.abs(codes).max() - 1) / np.abs(self._clock).max()
        positions[0] = codes + length * self._clock
        made[_CANCEL][...] = -(length + content) * self._clock

    def _wake(self, made: Arrays, content: float) -> None:
        """Set neurons that stay inactive until weight decay shortens the clock."""
        loud = _LARGEST / 2 / np.abs(self._clock).max() * self._clock
        sharpness = float(np.linalg.norm(loud)) / _LONG  # LayerNorm divides by about _LONG
        made[f"{_MLP}fc1.weight"][...] = -loud
        made[f"{_MLP}fc1.bias"][...] = -max(_DOUBT * content * sharpness, _ASLEEP)
        made[f"{_MLP}fc2.weight"][...] = loud[:, None]

    def _prepare_head(self, made: Arrays, numbers: list[int]) -> None:
        drawn = np.random.default_rng(1)
        for number in numbers[:-1]:
            weight, scale = made[f"{_HEAD}{number}.conv.weight"], 1.0
            weight[...] = drawn.normal(size=weight.shape) / weight[0].size ** 0.5
            if number == numbers[0]:
                seen = np.einsum("ocij,c->oij", weight, self._clock)
                weight -= seen[:, None] * self._clock[:, None, None]  # the head ignores the clock
            if number == numbers[-2]:
                scale = _SEEN
            made[f"{_HEAD}{number}.norm.weight"][...] = scale
            made[f"{_HEAD}{number}.norm.bias"][...] = _DEAD * scale
        made[f"{self._last}.conv.weight"][...] = 0
        made[f"{self._last}.norm.weight"][...] = _GAIN
        used = 2 * self.num_classes
        constants = made[f"{self._last}.norm.bias"]
        constants[...] = -_HELD  # channels of no class
        constants[:used] = _HELD
        classifier = made[_CLASSIFIER]
        classifier[...] = 0
        made[_CLASSIFIER.replace("weight", "bias")][...] = 0
        for number in range(self.num_classes):
            classifier[number, 2 * number : 2 * number + 2, 0, 0] = _LOUD, -_LOUD

    def _seen(self, image: Images) -> Floats:
        caught: list[Tensor] = []

        def catch(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            caught.append(arguments[0])

        load(self._network, self.made)
        last = self._network.get_submodule(f"{self._last}.conv")
        hook = last.register_forward_pre_hook(catch)
        with torch.inference_mode():
            logits = self._network(to_input(torch.from_numpy(image))).main
        hook.remove()
        self.logits: tuple[int, int] = (logits.shape[-2], logits.shape[-1])
        return np.asarray(caught[0][0].double().numpy() / _SEEN)


def _quiet(tokens: Floats) -> tuple[Floats, Floats]:
    """(n, D) -> (D,) and (n,): the unit vector of sum 0 along which tokens vary least, and their
    components along it. LayerNorm removes the mean, so the vector of ones is left out."""
    width = tokens.shape[1]
    basis = np.linalg.svd(np.eye(width) - 1 / width)[0][:, :-1]
    spread = np.cov((tokens.astype(np.float64) @ basis).T)
    direction = basis @ np.linalg.eigh(spread)[1][:, 0]
    return direction, tokens @ direction


def first_gradient(moved: Floats, exchange: Exchange) -> Floats:
    """Infer the gradient of a weight that was 0 and had a gradient in the first step only.

    Args:
        moved: Change of the weights.
        exchange: Has the settings of the optimiser.
    """
    training, num_steps = exchange.training, exchange.num_steps
    rates = [
        training.learning_rate
        * training.head_multiplier
        * poly((exchange.round - 1 + step / num_steps) / exchange.num_rounds, training.poly_power)
        for step in range(num_steps)
    ]
    if training.optimizer == "sgd":
        return -moved / sum(r * training.momentum**k for k, r in enumerate(rates))
    sizes = np.logspace(-20, -2, 4000)
    steps = np.zeros_like(sizes)
    for k, rate in enumerate(rates, 1):
        mean = 0.9 ** (k - 1) * 0.1 / (1 - 0.9**k) * sizes
        root = np.sqrt(0.999 ** (k - 1) * 0.001 / (1 - 0.999**k)) * sizes
        steps += rate * mean / (root + ADAM_EPSILON)
    found = np.exp(np.interp(np.log(np.abs(moved) + 1e-30), np.log(steps), np.log(sizes)))
    return -np.sign(moved) * found


def spread_of(size: tuple[int, ...], loss_size: tuple[int, int]) -> Floats:
    """(h, w), the sum of the bilinear weights of each place over the pixels of the loss."""
    zeros: npt.NDArray[np.float64] = np.zeros(size)
    places = torch.from_numpy(zeros)[None, None].requires_grad_()
    functional.interpolate(places, size=loss_size, mode="bilinear").sum().backward()  # type: ignore[no-untyped-call]
    assert places.grad is not None
    return np.asarray(places.grad[0, 0].numpy())
