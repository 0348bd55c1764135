"""The ciphers by name, as configs write them."""

from collections.abc import Mapping
from typing import Any, Final

from fl_ppseg.ciphers.cipher import Cipher
from fl_ppseg.ciphers.shuffle import Shuffle
from fl_ppseg.errors import InputError

CIPHERS: Final[Mapping[str, Cipher[Any]]] = {
    "shuffle": Shuffle(),
}


def get_cipher(name: str) -> Cipher[Any]:
    """Return the cipher of this name.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    if name not in CIPHERS:
        raise InputError(f"unknown cipher {name!r}; choose from {', '.join(CIPHERS)}")
    return CIPHERS[name]
