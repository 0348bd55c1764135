"""Small streets that a network learns in seconds, their label maps, and ciphers with test keys."""

from dataclasses import dataclass, field
from itertools import count

import numpy as np

from fl_ppseg.crypto.ciphers.cipher import Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt_batch
from fl_ppseg.crypto.keys import SubKey

BLOCK = 4
SIZE = (16, 32)
SKY, ROAD, CAR, WALL = range(4)
COLOURS = np.array([[190, 215, 245], [90, 85, 95], [170, 30, 40], [150, 130, 60]])


def streets(num_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3, H, W) images, each lit in its own way, and (n, H, W) label maps."""
    rng = np.random.default_rng(seed)
    labels = np.full((num_images, *SIZE), SKY, np.uint8)
    for label in labels:
        horizon, left, top = rng.integers((5, 0, 1), (12, 24, 5))
        label[horizon:] = ROAD
        label[top:horizon, left : left + rng.integers(3, 9)] = WALL
        row, column = rng.integers((horizon - 2, 0), (14, 26))
        label[row : row + 3, column : column + 6] = CAR
    light = rng.uniform(0.6, 1.1, (num_images, 1, 1, 1))
    images = COLOURS[labels].transpose(0, 3, 1, 2) * light + rng.normal(0, 6, labels[:, None].shape)
    return images.clip(0, 255).astype(np.uint8), labels


@dataclass(frozen=True)
class Encrypt:
    """A cipher with keys made of counted bytes: a key an image, or one for all."""

    cipher: str
    scope: Scope
    first: int
    reused: bool = False
    places: count = field(default_factory=count)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        keys = [
            SubKey((self.first + next(self.places) * (not self.reused)).to_bytes(32, "big"))
            for _ in images
        ]
        return encrypt_batch(images, keys, self.cipher, block_size=BLOCK, scope=self.scope)
