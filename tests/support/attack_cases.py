"""What the tests of keyed attacks share: scenes, ciphertexts, how much of a key is right."""

import numpy as np
import numpy.typing as npt

from fl_ppseg.audit.attacks.undoing import Algorithm, Undoing
from fl_ppseg.crypto.adaptation import linear_form
from fl_ppseg.crypto.ciphers.cipher import Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.pretrain import PUBLIC_CITIES
from fl_ppseg.scenes.cities import city_style
from fl_ppseg.scenes.render import render_scene

Images = npt.NDArray[np.uint8]

KEY = SubKey.from_bytes(bytes(range(32)))
ALGORITHMS = {
    "shuffle": Algorithm("values"),
    "shuffle-spatial": Algorithm("pixels"),
    "negative-positive": Algorithm("nothing", inverts=True),
    "shuffle+negative-positive": Algorithm("values", inverts=True),
    "shuffle-spatial+negative-positive": Algorithm("pixels", inverts=True),
    "restricted-shuffle": Algorithm("values"),
    "etc": Algorithm("values", inverts=True),
}
"""Of the ciphers that permute and invert."""


def scenes(number: int, size: tuple[int, int], seed: int = 0) -> Images:
    """(n, 3, H, W) public procedural scenes, a city each."""
    cities = [*PUBLIC_CITIES]
    drawn = (
        render_scene(city_style(cities[i % len(cities)]), seed, i, size)[0] for i in range(number)
    )
    return np.stack([photo.transpose(2, 0, 1) for photo in drawn])


def encrypted(
    images: Images, cipher: str, block_size: int, scope: Scope = "common", key: SubKey = KEY
) -> Images:
    """All under one key."""
    return np.stack(
        [encrypt(image, key, cipher, block_size=block_size, scope=scope) for image in images]
    )


def share_right(undoing: Undoing, cipher: str, block_size: int, key: SubKey = KEY) -> float:
    """Share of the positions whose origin and sign are the true ones, block scope `common`."""
    truth = linear_form(cipher, key, block_size)
    right = (undoing.index == truth.index) & (undoing.sign == truth.sign)
    return float(right.mean())
