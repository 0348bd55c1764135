"""The ciphers by name, as configs write them."""

from collections.abc import Mapping
from typing import Any, Final

from fl_ppseg.crypto.ciphers.cipher import Cipher
from fl_ppseg.crypto.ciphers.etc import Etc
from fl_ppseg.crypto.ciphers.ffx import FFX
from fl_ppseg.crypto.ciphers.negative_positive import NegativePositive
from fl_ppseg.crypto.ciphers.product import Product
from fl_ppseg.crypto.ciphers.restricted_shuffle import RestrictedShuffle
from fl_ppseg.crypto.ciphers.shuffle import Shuffle
from fl_ppseg.crypto.ciphers.shuffle_spatial import ShuffleSpatial
from fl_ppseg.system.errors import InputError

CIPHERS: Final[Mapping[str, Cipher[Any]]] = {
    "shuffle": Shuffle(),
    "shuffle-spatial": ShuffleSpatial(),
    "negative-positive": NegativePositive(),
    "ffx": FFX(),
    "restricted-shuffle": RestrictedShuffle(),
    "etc": Etc(),
}


def get_cipher(name: str) -> Cipher[Any]:
    """Return the cipher of this name, or the product of several, named `a+b+...`.

    Raises:
        InputError: a factor is unknown (the message lists those there are) or named twice.
    """
    factors = name.split("+")
    for factor in factors:
        if factor not in CIPHERS:
            place = f" in {name!r}" if len(factors) > 1 else ""
            raise InputError(
                f"unknown cipher {factor!r}{place}; choose from {', '.join(CIPHERS)}, "
                "or several of them joined by +"
            )
        if factors.count(factor) > 1:
            raise InputError(f"cipher {name!r} names {factor} twice; name each factor once")
    if len(factors) == 1:
        return CIPHERS[name]
    return Product(tuple(CIPHERS[factor] for factor in factors))
