"""Chained attacks: the output of one is the input of another.

Each is given what the adversary of its first attack holds, and public images; nothing more.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fl_ppseg.audit.attacks.closed_form_gradient import closed_form_gradient
from fl_ppseg.audit.attacks.embedding_matching import match_embeddings
from fl_ppseg.audit.attacks.gradient_matching import gradient_matching
from fl_ppseg.audit.attacks.mlp_gradient import mlp_gradient
from fl_ppseg.audit.attacks.position_correlation import correlate_positions
from fl_ppseg.audit.attacks.reader import Budget
from fl_ppseg.audit.attacks.survivor_network import survivor_network
from fl_ppseg.audit.attacks.thumbnail import thumbnail
from fl_ppseg.audit.attacks.token_span import token_span
from fl_ppseg.audit.attacks.undoing import Algorithm, Images, KeyGuess
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.setr.names import EMBEDDING_TENSORS

Show = Callable[[], Images | None]
"""An attack on messages, its arguments bound: returns the ciphertexts that the messages reveal."""


def of_many_images(
    shard: Images, num_targets: int, public: Images, *, block_size: int, algorithm: Algorithm
) -> KeyGuess:
    """Run position correlation over all images of a shard under one key; the targets come first.

    Args:
        shard: (n, 3, H, W), ciphertexts under one key.
        num_targets: How many of them to reconstruct.
        public: (m, 3, H', W'), public images, the prior.
        block_size: Side M of a block in pixels.
        algorithm: What the cipher may do.

    Returns:
        (num_targets, 3, H, W), the reconstructions.
    """
    found = correlate_positions(shard, public, block_size=block_size, algorithm=algorithm)
    return KeyGuess(found.reconstructed[:num_targets], found.undoing, found.confidence)


def of_single_images(
    public: Images, images: Images, *, block_size: int, algorithm: Algorithm
) -> Images:
    """Run position correlation on each image by itself; arguments as in `of_many_images`."""
    found = [
        correlate_positions(image[None], public, block_size=block_size, algorithm=algorithm)
        for image in images
    ]
    return np.concatenate([each.reconstructed for each in found])


def of_shown(show: Show, attack: Callable[[Images], Images]) -> Images | None:
    """Run an attack on the ciphertexts that messages reveal.

    Args:
        show: An attack on messages, bound.
        attack: From ciphertexts to reconstructions.

    Returns:
        (n, 3, H, W); None if the messages reveal no ciphertexts.
    """
    ciphertexts = show()
    return None if ciphertexts is None else attack(ciphertexts)


def of_survivors(
    public: Images,
    shows: Sequence[Show],
    form: str,
    *,
    block_size: int,
    budget: Budget,
) -> tuple[Images | None, ...]:
    """Train `survivor_network` once; run it on stolen ciphertexts or on those that messages reveal.

    Args:
        public: (n, 3, H, W), public images.
        shows: Functions that return ciphertexts, e.g. attacks on messages, bound.
        form: The canonical form that the cipher leaves.
        block_size: Side M of a block in pixels.
        budget: Of the training.

    Returns:
        Reconstructions for each of `shows`; None where it returns no ciphertexts.
    """
    given = [show() for show in shows]
    told = [images for images in given if images is not None]
    if not told:
        return tuple(given)
    read = survivor_network(
        public, np.concatenate(told), form, block_size=block_size, budget=budget
    )
    parts = iter(np.split(read, np.cumsum([len(images) for images in told])[:-1]))
    return tuple(None if images is None else next(parts) for images in given)


def small_copies(public: Images, form: str | None, block_size: int, images: Images) -> Images:
    """`thumbnail` with the ciphertexts as its last argument, to be bound by `partial`."""
    return thumbnail(public, images, form, block_size=block_size)


def decrypted_update(
    exchange: Exchange,
    public: npt.NDArray[np.float32],
    block_size: int,
    algorithm: Algorithm,
) -> KeyGuess | None:
    """Decrypt the ciphertext that a message reveals with the key that its embedding reveals.

    Args:
        exchange: What the coordinator sent and received; the embedding is adapted to a key.
        public: (D, 3, M, M), the embedding before it was adapted.
        block_size: Side M of a block in pixels.
        algorithm: What the cipher may do.
    """
    ciphertext = closed_form_gradient(exchange)
    if ciphertext is None:
        return None
    adapted = exchange.sent[EMBEDDING_TENSORS[0]]
    return match_embeddings(ciphertext, adapted, public, block_size=block_size, algorithm=algorithm)


def spanned_gradient(exchange: Exchange, images: Images, labels: Images) -> Images | None:
    """Refine the reconstruction of `token_span` by `mlp_gradient`; arguments as there.

    Returns:
        (1, 3, H, W); None if either attack returns None.
    """
    first = token_span(exchange, images)
    return None if first is None else mlp_gradient(exchange, images, labels, first)


def searched(exchange: Exchange) -> Images:
    """Run `gradient_matching` from one start, without labels."""
    return gradient_matching(exchange, num_restarts=1).images
