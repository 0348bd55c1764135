"""The coordinator infers the tokens from the first MLP's gradient; E need not be sent.

Adversary: the coordinator, honest but curious, with one client's message of one round and public
labelled images; no image, label or key of the client. As in `gradient_matching` it works with the
public embedding, whatever the client's private one is.

Method (this project's; the closed form of Lu et al. one layer further on): the first MLP's weight
W has dL/dW = sum_n e_n h_n^T, with h_n its input, which depends on block n, and e_n the gradient at
its output. e_n is not sent, but the gradient g_n of the same token's position embedding is, and it
predicts most of e_n: e_n = A g_n, with A learned on the public images under the same weights that
were sent. Then h_n is solved for like the blocks in `closed_form_gradient`, and a second map, also
learned on the public images, gives the block. Both maps are ridge regressions. Given the
reconstruction of another attack (`token_span`), it solves for the residual.

Must succeed: images like the public ones, one image, SGD: clearly better than the mean public
image. Must fail: a message whose gradients come from different images. Batches give mixtures.
"""

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fl_ppseg.audit.attacks.gaussian_process import error_of_sums, most_plausible, resemblance
from fl_ppseg.audit.attacks.gradients import Floats, Gradient, gradient_of, token_gradients
from fl_ppseg.audit.attacks.inputs import Images, first_layer, image_of, read_blocks
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.data.blocks import Geometry
from fl_ppseg.data.pixels import to_input
from fl_ppseg.learning.losses import pixel_loss
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.ridge import linear_map

_LAYER: Final = "backbone.blocks.0.mlp.fc1"
_DISTURBANCES: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Factors tried on the variance that rounding makes and A leaves unexplained on public images."""


class _Tokens(NamedTuple):
    """Activations and gradients of the model on public images, per token; (k, N, ...)."""

    blocks: Floats
    """In [-1, 1], (k, N, L)."""
    inputs: Floats
    """h, (k, N, D)."""
    gradients: Floats
    """g, (k, N, D)."""
    outputs: Floats
    """e, (k, N, R)."""


def mlp_gradient(
    exchange: Exchange, images: Images, labels: Images, first: Images | None = None
) -> Images | None:
    """Reconstruct one image from the message of one client, a mixture if it trained on several.

    Args:
        exchange: What the coordinator sent and received.
        images: (k, 3, H, W), public images; about a hundred.
        labels: (k, H, W), their trainIds.
        first: (1, 3, H, W), a reconstruction to refine; None: the mean public image.

    Returns:
        (1, 3, H, W); None after several steps of AdamW, which lose the sizes of gradients.
    """
    if not exchange.tells_sizes:
        return None
    model = build_architecture(exchange.model, exchange.num_classes, exchange.image_size)
    model.load_state_dict({n: torch.from_numpy(v) for n, v in exchange.sent.items()})
    geometry = Geometry.of_image(images.shape[1:], model.patch_size)
    pairs = zip(images, labels, strict=True)
    found = [_tokens(model, exchange, image, truth) for image, truth in pairs]
    public = _Tokens(*map(np.stack, zip(*found, strict=True)))
    usual, usual_inputs = public.blocks.mean(axis=0), public.inputs.mean(axis=0)
    spread = (public.inputs - usual_inputs).std(axis=(0, 1)) + 1e-9
    to_block = linear_map((public.inputs - usual_inputs) / spread, public.blocks - usual)
    if first is not None:
        (usual,) = read_blocks(first, None, model.patch_size)
        (usual_inputs,) = first_layer(model, first, "mlp")
    seen = _inputs(exchange, public, usual_inputs, spread, resemblance(geometry))
    return image_of(usual + seen @ to_block, None, geometry)


def _inputs(
    exchange: Exchange, public: _Tokens, usual: Floats, spread: Floats, prior: Floats
) -> Floats:
    """(N, D), the first MLP's inputs less `usual`, divided by `spread`."""
    sizes = np.linalg.norm(public.gradients, axis=-1, keepdims=True)
    sizes += sizes.mean() * 1e-6
    features, answers = public.gradients / sizes, public.outputs / sizes
    foretell = linear_map(features, answers)
    unexplained = np.mean((answers - features @ foretell) ** 2, axis=(0, 1))
    tokens, layer = token_gradients(exchange), gradient_of(exchange, f"{_LAYER}.weight")
    outputs = Gradient(tokens.value @ foretell, np.sqrt(tokens.deviation**2 @ foretell**2))
    sums = Gradient((layer.value - outputs.value.T @ usual) / spread, layer.deviation / spread)
    rounding = error_of_sums(outputs, sums, np.ones_like(usual)).mean(axis=1)
    deviation = np.sqrt(rounding + unexplained * (tokens.value**2).sum())
    # more equations than tokens, of equal noise once scaled: N orthogonal ones are equivalent
    basis, factors = np.linalg.qr((outputs.value / deviation).T)
    fewer = basis.T @ (sums.value / deviation[:, None])
    noises = (np.full_like(fewer, variance) for variance in _DISTURBANCES)
    return most_plausible(factors.T, fewer, prior, noises)


def _tokens(
    model: SETR, exchange: Exchange, image: Images, labels: Images
) -> tuple[Floats, Floats, Floats, Floats]:
    """One image's `_Tokens`."""
    caught: dict[str, Tensor] = {}

    def first_block(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        caught["gradients"] = arguments[0]

    def layer(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        caught["inputs"], caught["outputs"] = arguments[0], output

    hooks = (
        model.backbone.blocks[0].register_forward_pre_hook(first_block),
        model.get_submodule(_LAYER).register_forward_hook(layer),
    )
    scores = model(to_input(torch.from_numpy(image[None]))).main
    loss = pixel_loss(scores, torch.from_numpy(labels[None]), exchange.training)
    gradients = torch.autograd.grad(loss, (caught["gradients"], caught["outputs"]))
    for hook in hooks:
        hook.remove()
    (blocks,) = read_blocks(image[None], None, model.patch_size)
    num_blocks = len(blocks)
    inputs, *rest = (
        tensor[0, -num_blocks:].detach().double().numpy()
        for tensor in (caught["inputs"], *gradients)
    )
    return blocks, inputs, rest[0], rest[1]
