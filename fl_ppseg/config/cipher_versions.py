"""Versions of the ciphers' specifications, and what is encrypted by one that is not this program's.

A specification says which bytes a key gives; data and weights of another version would be read
wrongly, without a sign of it. So shards, the owner's records and checkpoints name the versions that
they were made by, and others are refused in words. What names none is of before they were written
down, when every cipher was of version 1.

    negative-positive   1: exactly half of a block's values were inverted, which told of the image
                           (the number of bright values of a ciphertext kept its parity)
                        2: an independent unbiased bit a value
"""

from collections.abc import Mapping
from typing import Final

from fl_ppseg.system.errors import InputError

VERSIONS: Final[Mapping[str, int]] = {
    "shuffle": 1,
    "shuffle-spatial": 1,
    "negative-positive": 2,
    "ffx": 1,
    "restricted-shuffle": 1,
    "etc": 1,
}
"""Of this program, by the names of ciphers."""
FIRST: Final = 1


def versions_of(cipher: str | None) -> dict[str, int]:
    """Versions of a cipher, or of the factors of a product; of none where there is no cipher.

    >>> versions_of("shuffle+negative-positive")
    {'shuffle': 1, 'negative-positive': 2}
    """
    return {name: VERSIONS.get(name, FIRST) for name in cipher.split("+")} if cipher else {}


def as_recorded(cipher: str | None, found: Mapping[str, int]) -> dict[str, int]:
    """Versions of a cipher's factors as something names them, the first where it names none."""
    return {name: found.get(name, FIRST) for name in versions_of(cipher)}


def check_versions(found: Mapping[str, int], place: str, remedy: str = "encrypt again") -> None:
    """Check that this program decrypts what was encrypted by these versions.

    Args:
        found: By the names of ciphers.
        place: What was encrypted, for messages.
        remedy: What to do then.

    Raises:
        InputError: It does not.
    """
    for name, version in found.items():
        if version != VERSIONS.get(name):
            own = f"version {VERSIONS[name]}" if name in VERSIONS else "no such cipher"
            raise InputError(
                f"{place}: encrypted by version {version} of {name}, this program has {own}; "
                f"{remedy}"
            )
