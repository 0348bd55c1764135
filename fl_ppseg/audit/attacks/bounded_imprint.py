"""An active coordinator reads images from updates of weights that stay within a trust region.

Adversary: as in `imprint`, a coordinator that sends weights of its own making to one client, which
trains as agreed; but the client's node compares weights with those of round 0 and with those that
it accepted before (`clients.policy.trust_region`). The coordinator knows the region, since it knows
the agreed settings, and sends nothing outside it. It holds its exchanges with the client and public
images, no key.

Method: the region grows with the round; in late rounds it is wide enough to clear nearly all
weights. `imprint` needs weights of 100,000; this design (made by `bounded_imprinting`) has none
above 3:

- Each position embedding is one of a set of codes of +-1 that differ in many channels: a neuron of
  an MLP tells by its weights on them whether a token is of its block.
- The first attention writes the image's number into every token; a round tells apart the numbers
  of a range. Since nodes accept small changes from one round to the next, later rounds cannot
  magnify the part where images lie, unless many rounds are in between.
- Neighbouring neurons have neighbouring thresholds: the difference of what their weights gained,
  over that of their biases, is the token of the image between both. Differences are taken within a
  layer only, since gradients differ a little between layers.
- Gradients must stay below AdamW's epsilon, for its steps to be proportional to them. One tiny
  weight does not do, for a step of AdamW moves it by the learning rate. So several layers in a row
  have weights of a few thousandths, which the small learning rate of a late round hardly changes.

Must succeed: plain images, late in a training of 30 rounds with the agreed settings. Must fail: if
the region is narrow, as in early rounds or by the owner's own bound; if weights moved for other
reasons, such as the noise of local differential privacy. With an invariant embedding it returns
images of the same canonical form. Images whose numbers lie close together come as mixtures.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from fl_ppseg.audit.attacks.bounded_imprinting import channels_of
from fl_ppseg.audit.attacks.imprint import collected
from fl_ppseg.audit.attacks.inputs import Images, embedded, first_layer, image_of, load, read_blocks
from fl_ppseg.audit.attacks.neurons import gaps_within
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.data.blocks import Geometry
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.ridge import ridge, with_one

_BEYOND: Final = 1.2
"""Values of images lie within this, in absolute value."""
_FEW: Final = 0.05
"""Share of values outside above which a reconstruction is dropped."""
_FAINT: Final = 1e-3
"""Share of the largest change of biases below which a gap is taken to be empty."""


def bounded_imprint(exchanges: Sequence[Exchange], public: Images) -> Images | None:
    """Reconstruct images from a client's replies to weights of `bounded_imprinted`.

    Args:
        exchanges: What the coordinator sent and received; of a private embedding `sent` holds the
            public one that it was adapted from.
        public: (k, 3, H, W), the public images of `bounded_imprinted`.

    Returns:
        (n, 3, H, W), the inputs of the embedding, one per gap and round; None if there are none.
    """
    return collected(exchanges, public, _shown)


def _shown(exchange: Exchange, network: SETR, public: Images) -> Iterator[Images]:
    """Yield the reconstructions of one exchange, (3, H, W) each."""
    load(network, exchange.sent)
    form, size = exchange.model.invariant, network.patch_size
    geometry = Geometry.of_image(public.shape[1:], size)
    content = channels_of(embedded(network, public)).content
    seen = first_layer(network, public, "mlp")[..., content]
    scale = seen.std(axis=(0, 1)) + 1e-12
    answer = ridge(zip(seen / scale, read_blocks(public, form, size), strict=True))
    sums = gaps_within(exchange, "weight", geometry.num_blocks)[..., content]
    totals = gaps_within(exchange, "bias", geometry.num_blocks)
    changed = np.abs(totals).sum(axis=1)
    for gap in np.flatnonzero(changed > _FAINT * changed.max(initial=0.0)):
        divisor = np.where(totals[gap] == 0, np.inf, totals[gap])[:, None]
        blocks = with_one(sums[gap] / divisor / scale) @ answer
        if np.mean(np.abs(blocks) > _BEYOND) < _FEW:
            yield image_of(blocks, form, geometry)[0]
