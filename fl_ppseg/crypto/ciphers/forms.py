"""Canonical forms of a block by name, and which ciphers leave them as they are.

    values             all values, sorted
    magnitudes         |2v - 255| of all values, sorted
    placed-magnitudes  the same, each in its place
    pixels             the RGB triples of all pixels, sorted
    pixel-magnitudes   the same of |2v - 255|
    sub-blocks         of each sub-block of half the side one that stands for all that turns, orders
                       of colours and inversion as a whole make of it; the four sorted

A cipher that draws evenly from a group of maps carries a block to each place of its orbit equally
often: the ciphertext tells which orbit, and nothing else. The form of such a cipher names it. The
first five are those of the groups in which pixels or values move and values are inverted one by
one; these groups make larger ones, whichever of them come first.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from fl_ppseg.crypto.ciphers.cipher import Cipher, Effect

SUB_BLOCKS: Final = "sub-blocks"
_LEFT_BY: Final[Mapping[str, Effect]] = {
    "values": Effect.MOVES_PIXELS | Effect.MOVES_VALUES | Effect.PERMUTES_CHANNELS,
    "magnitudes": ~Effect.SUBSTITUTES_VALUES,
    "placed-magnitudes": Effect.INVERTS_VALUES,
    "pixels": Effect.MOVES_PIXELS,
    "pixel-magnitudes": Effect.MOVES_PIXELS | Effect.INVERTS_VALUES,
    SUB_BLOCKS: Effect(0),
}
"""What may be done to a block without a change of its form."""


def moved(effects: Effect) -> str:
    """The form of the group of all that such effects can do, channels of pixels kept apart or not.

    >>> moved(Effect.MOVES_PIXELS | Effect.INVERTS_VALUES)
    'pixel-magnitudes'
    """
    inverted = Effect.INVERTS_VALUES in effects
    if effects & (Effect.MOVES_VALUES | Effect.PERMUTES_CHANNELS):
        return "magnitudes" if inverted else "values"
    if Effect.MOVES_PIXELS in effects:
        return "pixel-magnitudes" if inverted else "pixels"
    return "placed-magnitudes"


def leaves(cipher: Cipher[Any], form: str) -> bool:
    """Whether no key of a cipher changes the form of any block."""
    return cipher.form == form or not cipher.effects & ~_LEFT_BY[form]


def form_of_product(factors: Sequence[Cipher[Any]]) -> str | None:
    """The form on which alone the distribution of a product's ciphertexts depends, as far as known.

    Factors that follow each other and are one group have its form. What comes after them adds
    nothing to what the block says of them; what comes before neither, where it leaves their form.
    Of several such groups the last has the coarsest form.
    """
    found, before = None, list[Cipher[Any]]()
    for form, group in groupby(factors, _group_of):
        members = list(group)
        own = moved(_effects(members)) if form == "moves" else form
        if own is not None and all(leaves(cipher, own) for cipher in before):
            found = own
        before += members
    return found


def _group_of(cipher: Cipher[Any]) -> str | None:
    """`moves` for the factors that make one group with their neighbours, else their own form."""
    return "moves" if cipher.form in _LEFT_BY and cipher.form != SUB_BLOCKS else cipher.form


def _effects(ciphers: Sequence[Cipher[Any]]) -> Effect:
    found = Effect(0)
    for cipher in ciphers:
        found |= cipher.effects
    return found
