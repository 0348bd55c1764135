"""An active coordinator sends crafted weights under which a client's update reveals its images.

Adversary: a coordinator that does not average, but sends crafted weights; the training settings
stay those that the owner of the node agreed to. It holds its exchanges with one client and public
images, no key. It reconstructs the input of the public patch embedding; a private one gives the
same tokens (E'x' = Ex).

Method (Fowl et al., "Robbing the Fed", ICLR 2022, where each neuron stores one block; the design
for a ViT that learns dense labels with AdamW is this project's):

- Position embeddings have a large norm, and each has its own direction in a few channels: after
  LayerNorm a token holds the direction of its block, and its content in the other channels.
- Only the first layer attends, and to all tokens equally: it writes one number into every token of
  an image, the mean of their content along a direction in which public images differ.
- Neuron (j, n) of the MLPs fires for block n of those images whose number exceeds threshold j. Its
  weight moves by the sum of (gradient at its output) x (token) over them, its bias by that of the
  gradients alone. Neighbours j and j + 1 differ by the images in the gap between them; if that is
  one image, the quotient of the differences is the token. Gaps that held images are divided in a
  second round; a third and fourth number the images along another direction.
- Weights that read content start at zero, where float32 keeps every digit of a small change. The
  last layers of each head are scaled down so far that gradients stay far below AdamW's epsilon:
  its steps are then proportional to them, and for several steps no other weight moves.

Must succeed: plain images, a frozen or a private embedding, training as configured. Must fail: if
weights moved for other reasons, such as the noise of local differential privacy. With an uploaded
linear embedding it returns ciphertexts, with an invariant one images of the same canonical form.
Images that share a gap come as a mixture.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from fl_ppseg.audit.attacks.inputs import Images, first_layer, image_of, load, read_blocks
from fl_ppseg.audit.attacks.neurons import gaps, is_held, moved, rows
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.data.blocks import Geometry
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.ridge import ridge, with_one

_BEYOND: Final = 1.2
"""Values of images lie within this, in absolute value."""
_FEW: Final = 0.02
"""Share of values outside above which a reconstruction is dropped."""


def imprint(exchanges: Sequence[Exchange], public: Images) -> Images | None:
    """Reconstruct images from a client's replies to imprinted weights.

    Args:
        exchanges: What the coordinator sent, made by `imprinted`, and received.
        public: (k, 3, H, W), public images as the model reads them.

    Returns:
        (n, 3, H, W), the inputs of the embedding, one per gap and round; None if there are none.
    """
    return collected(exchanges, public, _shown)


def collected(
    exchanges: Sequence[Exchange],
    public: Images,
    shown: Callable[[Exchange, SETR, Images], Iterator[Images]],
) -> Images | None:
    """What each exchange shows, all together; None if none shows an image.

    Args:
        exchanges: Of one model.
        public: (k, 3, H, W), public images as the model reads them.
        shown: Yields (3, H, W) reconstructions of one exchange, given it, a model of its
            architecture to load weights into, and the public images.
    """
    if not exchanges:
        return None
    first = exchanges[0]
    network = build_architecture(first.model, first.num_classes, first.image_size)
    found = [image for exchange in exchanges for image in shown(exchange, network, public)]
    return np.stack(found) if found else None


def _shown(exchange: Exchange, network: SETR, public: Images) -> Iterator[Images]:
    """Yield the reconstructions of one exchange, (3, H, W) each."""
    load(network, exchange.sent)
    form, size = exchange.model.invariant, network.patch_size
    geometry = Geometry.of_image(public.shape[1:], size)
    num_blocks = geometry.num_blocks
    laid = rows(exchange.sent, "weight", num_blocks)
    content = np.flatnonzero(~laid.any(axis=(0, 1)))
    if not len(laid) or not len(content):
        return  # fewer neurons than blocks, or weights not made by `imprinted`
    seen = first_layer(network, public, "mlp")[..., content]
    scale = seen.std(axis=(0, 1))
    answer = ridge(zip(seen / scale, read_blocks(public, form, size), strict=True))
    sums = gaps(moved(exchange, "weight", num_blocks)[..., content])
    totals = gaps(moved(exchange, "bias", num_blocks))
    for number in np.flatnonzero(is_held(totals)):
        divisor = np.where(totals[number] == 0, np.inf, totals[number])[:, None]
        blocks = with_one(sums[number] / divisor / scale) @ answer
        if np.mean(np.abs(blocks) > _BEYOND) < _FEW:
            yield image_of(blocks, form, geometry)[0]
