"""The coordinator searches for images whose gradients match those that it received.

Adversary: the coordinator, honest but curious, with one client's message of one round; no image, no
key, no public images. The embedding may be frozen or private: the attack always works with the
public one that the coordinator itself sent. A private embedding of an encrypted image equals the
public embedding of the plain image, so the attack reconstructs the plain image there too, as well
as from `plain-frozen-embedding`.

Method: Inverting Gradients (Geiping et al., NeurIPS 2020): cosine distance of gradients, Adam with
a decaying rate, several starts, the best by its distance. Adapted to a ViT: the position embeddings
give the gradient of every token (Lu et al., CVPR 2022), and each token is matched by itself; of the
other tensors only those of the first encoder block, which cost least and read the tokens. The prior
is on amplitudes instead of total variation: the image is the inverse cosine transform of unknowns
scaled like the spectrum of photographs, small at high frequencies and between colours. Labels are
either given, or soft labels are optimised with the image.

Must succeed: one image of few tokens, one step of SGD, labels given: recovers its layout. It is a
weak attack on whole scenes: the search ends in other images with nearly the same gradients, and
`mlp_gradient` recovers more. Must fail: gradients of no image. Weaker with unknown labels, batches
and several steps.
"""

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from fl_ppseg.audit.attacks.gradients import gradient_of
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.data.classes import IGNORE_INDEX
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import POSITION_TENSOR

Images = npt.NDArray[np.uint8]

_FIRST_BLOCK: Final = "backbone.blocks.0."
_RATE: Final = 0.1
"""Initial learning rate of Adam."""
_STEEPNESS: Final = 1.5
"""Amplitudes of photographs fall with about this power of the frequency."""
_CONTRAST: Final = 0.55
"""Standard deviation of a street scene's values in [-1, 1]."""
_COLOURS: Final = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
"""Directions in RGB along which the values of photographs are nearly independent."""
_COLOUR_SPREAD: Final = (1.6, 0.35, 0.2)
_PRIOR: Final = 0.01
"""Weight of the mean square of the unknowns."""


class Match(NamedTuple):
    """Result of the search."""

    images: Images
    """(B, 3, H, W), a reconstruction of each image that the client's steps used."""
    distance: float
    """Distance of the gradients: 0 if all agree, about 2 for gradients of unrelated images."""


class _Target(NamedTuple):
    """Gradients to be matched."""

    tokens: Tensor
    """(N, D), of the position embeddings."""
    others: tuple[Tensor, ...]
    names: tuple[str, ...]


def gradient_matching(
    exchange: Exchange,
    *,
    labels: Images | None = None,
    num_iterations: int = 250,
    num_restarts: int = 2,
    seed: int = 0,
) -> Match:
    """Find the images whose gradients at the sent weights are nearest to the received ones.

    Args:
        exchange: What the coordinator sent and received.
        labels: (B, H, W) trainIds, if the adversary knows them.
        num_iterations: Steps of Adam per start.
        num_restarts: Starts; the first is from grey, the others from random images.
        seed: Of the random starts.
    """
    model = _public_model(exchange)
    target = _target(exchange, model)
    generator = torch.Generator().manual_seed(seed)
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        found = [
            _search(exchange, model, target, labels, num_iterations, start, generator)
            for start in range(num_restarts)
        ]
    return min(found, key=lambda match: match.distance)


def _public_model(exchange: Exchange) -> SETR:
    model = build_architecture(exchange.model, exchange.num_classes, exchange.image_size)
    model.load_state_dict({n: torch.from_numpy(v) for n, v in exchange.sent.items()})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == POSITION_TENSOR or name.startswith(_FIRST_BLOCK))
    return model.eval()


def _target(exchange: Exchange, model: SETR) -> _Target:
    num_blocks = math.prod(model.grid)
    names = tuple(n for n, p in model.named_parameters() if n.startswith(_FIRST_BLOCK))
    tensors = {n: gradient_of(exchange, n).value for n in (POSITION_TENSOR, *names)}
    float32 = {name: torch.from_numpy(value).float() for name, value in tensors.items()}
    tokens = float32.pop(POSITION_TENSOR)[0, -num_blocks:]
    return _Target(tokens, tuple(float32.values()), names)


def _search(
    exchange: Exchange,
    model: SETR,
    target: _Target,
    labels: Images | None,
    num_iterations: int,
    start: int,
    generator: torch.Generator,
) -> Match:
    scale = _Photographs(exchange.image_size)
    shape = (exchange.num_examples, 3, *exchange.image_size)
    unknown = 0.3 * min(start, 1) * torch.randn(shape, generator=generator)
    answers = _answers(model, exchange, labels)
    soft = [answers] if answers.requires_grad else []
    optimizer = torch.optim.Adam([unknown.requires_grad_(True), *soft], lr=_RATE, betas=(0.9, 0.99))
    for iteration in range(num_iterations):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, 2 * (1 - iteration / num_iterations))
        distance = _distance(model, target, scale.image(unknown), answers)
        optimizer.zero_grad()
        torch.autograd.backward(distance + _PRIOR * unknown.square().mean())
        optimizer.step()
    image = scale.image(unknown.detach())
    levels = ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Match(levels.numpy(), float(distance.detach()))


def _answers(model: SETR, exchange: Exchange, labels: Images | None) -> Tensor:
    """(B, num_classes, h, w), one-hot labels if given, else soft labels to optimise."""
    probe = torch.zeros(exchange.num_examples, 3, *exchange.image_size)
    with torch.no_grad():
        scores = model(probe).main
    if labels is None:
        return torch.zeros_like(scores).requires_grad_(True)
    maps = torch.from_numpy(labels)[:, None].float()
    sampled = functional.interpolate(maps, size=scores.shape[-2:], mode="nearest-exact")[
        :, 0
    ].long()
    known = functional.one_hot(sampled.clamp(max=exchange.num_classes - 1), exchange.num_classes)
    return (known * (sampled != IGNORE_INDEX)[..., None]).movedim(-1, 1).float()


def _distance(model: SETR, target: _Target, images: Tensor, answers: Tensor) -> Tensor:
    """Mean cosine distance of the tokens' gradients plus that of the first block's tensors."""
    probabilities = answers.softmax(dim=1) if answers.requires_grad else answers
    loss = -(probabilities * model(images).main.log_softmax(dim=1)).sum(dim=1).mean()
    parameters = dict(model.named_parameters())
    chosen = [parameters[name] for name in (POSITION_TENSOR, *target.names)]
    position, *others = torch.autograd.grad(loss, chosen, create_graph=True)
    tokens = position[0, -len(target.tokens) :]
    near = functional.cosine_similarity(tokens, target.tokens, dim=-1).mean()
    pairs = zip(others, target.others, strict=True)
    cosines = [functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in pairs]
    return (1 - near) + (1 - torch.stack(cosines).mean())


class _Photographs:
    """Unknowns of unit variance -> images with the spectrum of photographs; (B, 3, H, W) both.

    Args:
        size: (height, width) in pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.rows, self.columns = (_cosines(side) for side in size)
        height, width = size
        down, across = torch.arange(height)[:, None] / height, torch.arange(width) / width
        frequency = torch.hypot(down, across) * max(size) / 2  # in half-waves an image
        amplitude = (frequency + 0.5) ** -_STEEPNESS
        self.amplitude = _CONTRAST * amplitude / amplitude.square().mean().sqrt()
        directions = functional.normalize(torch.tensor(_COLOURS), dim=1)
        self.colours = torch.tensor(_COLOUR_SPREAD)[:, None] * directions

    def image(self, unknown: Tensor) -> Tensor:
        """The image of these unknowns, roughly in [-1, 1]."""
        coloured = torch.einsum("bkhw,kc->bchw", unknown * self.amplitude, self.colours)
        return self.rows.T @ coloured @ self.columns


def _cosines(side: int) -> Tensor:
    """(side, side), orthonormal cosine transform (DCT-II): row k has k half-waves."""
    phase = torch.pi / side * torch.arange(side)[:, None] * (torch.arange(side) + 0.5)
    basis = math.sqrt(2 / side) * torch.cos(phase)
    basis[0] /= math.sqrt(2)
    return basis
