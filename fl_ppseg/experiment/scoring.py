"""Confusion counts, image by image, of a checkpoint on images of owners outside training.

Images are encrypted with ephemeral keys as the checkpoint's arm requires (one key per client for
`per-client`, one key per image for `per-image`), and a private embedding is adapted to each new
key. Arms with a shared key are queried under that key, or under another one.

This needs the images: only a simulation and `fl_ppseg.evaluate` can do it. The coordinator only
receives sums over a client's images.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clients.query import Key, shared_query
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.pixel_order import PixelOrder
from fl_ppseg.data.views import fit_for_scoring
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.checkpoints import model_of, protection_of, weights_of
from fl_ppseg.federation.description import Description
from fl_ppseg.learning.evaluation import Sample, evaluate
from fl_ppseg.learning.owner_view import owner_view
from fl_ppseg.learning.sliding import SlidingWindows
from fl_ppseg.query.ephemeral import Query, ephemeral_query
from fl_ppseg.system.files import Progress
from fl_ppseg.system.spans import span

NewQuery = Callable[[], Query]
"""Makes a query with the key of one client's owner."""


def counts_by_image(
    checkpoint: Checkpoint,
    clients: Mapping[str, Sequence[Scene]],
    new_query: NewQuery,
    device: str,
    progress: Progress = lambda done, total: None,
) -> dict[str, NDArray[np.int64]]:
    """Client -> (N, C, C) pixel counts of its N images, each client encrypted by its own owner.

    Args:
        checkpoint: One model, not one per client.
        clients: Scenes to score, one image at a time.
        new_query: Called once per client.
        device: Where to compute.
        progress: Called with (clients done, clients in all).

    Raises:
        InputError: A scene cannot be read.
    """
    model, description = model_of(checkpoint).to(device), checkpoint.description
    frames, num_classes = SlidingWindows(model), len(description.classes)
    counts = {}
    for done, (client, scenes) in enumerate(clients.items()):
        progress(done, len(clients))
        query = new_query()
        query.load_into(model)
        found = [
            evaluate(owner_view(frames, model, [order]), [sample], num_classes, device)[0].numpy()
            for sample, order in _samples(query, scenes, description)
        ]
        counts[client] = np.array(found, np.int64).reshape(-1, num_classes, num_classes)
    progress(len(clients), len(clients))
    return counts


def queries(checkpoint: Checkpoint, shared: SubKey | None, key: Key = "right") -> NewQuery:
    """Return a function that makes the query of one client's owner.

    Args:
        checkpoint: Of the arm.
        shared: The shared key; required for an arm with one.
        key: Which key such an arm is queried under; other arms ignore it.

    Raises:
        InputError: The arm was trained on images that another version of its cipher encrypted.
    """
    protection, weights = protection_of(checkpoint), weights_of(checkpoint)
    block_size = checkpoint.description.patch_size
    if shared is None:
        return lambda: ephemeral_query(protection, block_size, weights)
    return lambda: shared_query(protection, key, shared, block_size, weights)


def _samples(
    query: Query, scenes: Sequence[Scene], description: Description
) -> Iterator[tuple[Sample, PixelOrder | None]]:
    """Images of one client at the model's size, encrypted, and the labels to score them by.

    Each with the order that brings its scores back, where they come in another.
    """
    size, block_size = description.image_size, description.patch_size
    for scene in scenes:
        with span("data"):
            pair = scene.load()
            fitted, labels = fit_for_scoring(*pair, size, description.fit, block_size)
        with span("encryption"):
            ciphertext, order = query.encrypt_keeping_order(fitted)
        yield (ciphertext, labels), order
