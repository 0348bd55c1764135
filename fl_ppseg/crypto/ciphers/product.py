"""Products of ciphers: `a+b` encrypts by a, then what comes out by b."""

from functools import reduce
from operator import or_
from typing import Any

from fl_ppseg.crypto.ciphers.cipher import Cipher, Effect, Scope
from fl_ppseg.crypto.ciphers.forms import form_of_product
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Array, Geometry


class Product(Cipher[tuple[Any, ...]]):
    """Ciphers one after another, each with parameters of its own.

    Args:
        factors: The first is applied first.
    """

    def __init__(self, factors: tuple[Cipher[Any], ...]) -> None:
        self.factors = factors

    @property
    def effects(self) -> Effect:
        """All that any factor may do."""
        return reduce(or_, (factor.effects for factor in self.factors))

    @property
    def form(self) -> str | None:
        """That of the last factors that are one group and whose form those before them leave."""
        return form_of_product(self.factors)

    def draw(
        self, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> tuple[Any, ...]:
        """Draw the parameters of each factor, with steps `step`, `step` + 1, ...

        Raises:
            InputError: as the factors.
        """
        return tuple(
            factor.draw(subkey, geometry, scope, place)
            for place, factor in enumerate(self.factors, step)
        )

    def apply(self, blocks: Array, parameters: tuple[Any, ...]) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, through all factors."""
        for factor, own in zip(self.factors, parameters, strict=True):
            blocks = factor.apply(blocks, own)
        return blocks

    def invert(self, blocks: Array, parameters: tuple[Any, ...]) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, back through all factors, the last one first."""
        for factor, own in zip(reversed(self.factors), reversed(parameters), strict=True):
            blocks = factor.invert(blocks, own)
        return blocks

    def encrypt(
        self, blocks: Array, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> Array:
        """(N, L) uint8 -> (N, L) uint8, each factor in its own way."""
        for place, factor in enumerate(self.factors, step):
            blocks = factor.encrypt(blocks, subkey, geometry, scope, place)
        return blocks

    def decrypt(
        self, blocks: Array, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> Array:
        """(N, L) uint8 -> (N, L) uint8, each factor in its own way, the last one first."""
        for place, factor in reversed(list(enumerate(self.factors, step))):
            blocks = factor.decrypt(blocks, subkey, geometry, scope, place)
        return blocks
