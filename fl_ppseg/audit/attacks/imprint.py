"""An active coordinator hands out weights that make a client's update hold its images.

Adversary: a coordinator that does not average, but sends weights of its own making; the settings of
the training stay those that the owner of the node agreed to. It holds its exchanges with one client
and public images, no key. It sees what the patch embedding reads: it works with the public one, and
a private one gives the same tokens (E'x' = Ex).

Method (Fowl et al., "Robbing the Fed", ICLR 2022, whose neurons each keep one block; the design for
a ViT that learns dense labels with AdamW is ours):

- Position embeddings are long, and each has its own direction in a few channels: LayerNorm leaves
  of a token the direction of its block, and its content in the other channels.
- No layer attends but the first, and this to all alike: it writes one number into every token of an
  image, the mean of their content along a direction in which public images differ.
- Neuron (j, n) of the MLPs fires for block n of those images whose number exceeds threshold j. Its
  weight moves by the sum of (gradient at its output) x (token) over them, its bias by that of the
  gradients alone. Neighbours j and j + 1 differ by the images in the gap between them; if that is
  one, the quotient of the differences is the token. Gaps that held images are divided in a second
  round; a third and fourth number the images along another direction.
- Weights that read content are zero at first, where float32 keeps every digit of a small change.
  The end of each head is so quiet that gradients stay far below AdamW's epsilon, where its steps
  are proportional to them, and for several steps nothing moves by itself.

Must win: plain images, a frozen or a private embedding, rounds as they are trained. Must not: where
weights moved for other reasons, such as the noise of local differential privacy. Of an uploaded
linear embedding it returns ciphertexts, of an invariant one images of the same canonical form.
Images that share a gap come as a mixture.
"""

from collections.abc import Iterator, Sequence
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
"""Values further out are of no image."""
_FEW: Final = 0.02
"""Share of such values above which a guess is none."""


def imprint(exchanges: Sequence[Exchange], public: Images) -> Images | None:
    """What a client's replies to imprinted weights show.

    Args:
        exchanges: What the coordinator sent, of `imprinted`, and got.
        public: (k, 3, H, W), images of its own, as the model reads them.

    Returns:
        (n, 3, H, W), what the model read, an image a gap and round; None: nothing came.
    """
    if not exchanges:
        return None
    first = exchanges[0]
    network = build_architecture(first.model, first.num_classes, first.image_size)
    shown = [image for exchange in exchanges for image in _shown(exchange, network, public)]
    return np.stack(shown) if shown else None


def _shown(exchange: Exchange, network: SETR, public: Images) -> Iterator[Images]:
    """(3, H, W) each."""
    load(network, exchange.sent)
    form, size = exchange.model.invariant, network.patch_size
    geometry = Geometry.of_image(public.shape[1:], size)
    num_blocks = geometry.num_blocks
    laid = rows(exchange.sent, "weight", num_blocks)
    content = np.flatnonzero(~laid.any(axis=(0, 1)))
    if not len(laid) or not len(content):
        return  # fewer neurons than blocks, or no weights of `imprinted`
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
