"""Public scenes as ciphertexts, for the model creator's step alone.

**The keys here are public: they follow from the seed of the scenes.** They hide nothing and are to
hide nothing, for the scenes follow from the same seed; a file of weights can be made again by it.
Everywhere else keys come from the operating system. A label of its own keeps these apart from any
key of an owner, and nothing but `pretrain` may import this module.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final

import numpy as np

from fl_ppseg.crypto.ciphers.encryption import encrypt_batch
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.shard import Shard, ShardPart

_LABEL: Final = "fl_ppseg/v1/public"


class EncryptedScenes(Shard):
    """Plain views that are encrypted when they are read, every time under a new key.

    One key serves all blocks of an image, as in arm `per-image`. What is read depends on what was
    read before, and on nothing else.

    Args:
        parts: Of a shard of plain views.
        cipher: Name of a cipher, or a product of them.
        block_size: Side of a block in pixels.
        seed: Of the scenes.
    """

    def __init__(self, parts: Sequence[ShardPart], cipher: str, block_size: int, seed: int) -> None:
        super().__init__(parts)
        self._cipher, self._block_size = cipher, block_size
        self._keys = public_keys(seed)

    def batch(self, indices: Sequence[int], views: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Views (B, 3, H, W) under keys never used before, and their trainIds (B, H, W).

        Raises:
            InputError: As `encrypt_batch`.
        """
        images, labels = super().batch(indices, views)
        return self.encrypted(images), labels

    def heldout(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Held-out pairs likewise: image (3, H, W) uint8, trainIds (h, w) uint8."""
        for image, labels in super().heldout():
            yield self.encrypted(image[None])[0], labels

    def encrypted(self, images: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) uint8 -> (B, 3, H, W) uint8, each under the next key."""
        keys = [next(self._keys) for _ in images]
        size = self._block_size
        return encrypt_batch(images, keys, self._cipher, block_size=size, scope="common")


def public_keys(seed: int) -> Iterator[SubKey]:
    """The keys of a seed, which anybody can make: SHA-256 of label, seed and number."""
    for number in count():
        yield SubKey.from_bytes(hashlib.sha256(f"{_LABEL}/{seed}/{number}".encode()).digest())
