"""What survives a cipher whatever its key, as the name of a canonical form."""

from fl_ppseg.ciphers.cipher import Effect
from fl_ppseg.ciphers.registry import get_cipher


def invariant_form(name: str) -> str | None:
    """Return the finest canonical form that every key of a cipher leaves as it is.

    A form must forget all that some key can change, and need forget no more:
        - Codebooks change what a value is, and nothing of it is left to order: no form.
        - Inversion takes the sign of v - 127.5 and leaves |2v - 255|: magnitudes.
        - Pixels that move whole keep their triples: these, in an order of their own. Once values
          move alone, or channels change places, nobody knows which values were a pixel: all values
          of the block, sorted.
    Each factor of a product may do all that it can, so the effects of all count together and the
    coarser form holds. Inversion alone moves nothing, but no form keeps places: it gets the sorted
    magnitudes, as if values had moved.

    Args:
        name: A cipher or a product, as `get_cipher` takes it.

    Returns:
        `values`, `magnitudes`, `pixels` or `pixel-magnitudes`; None where there is none.

    Raises:
        InputError: no such cipher.
    """
    effects = get_cipher(name).effects
    if Effect.SUBSTITUTES_VALUES in effects:
        return None
    parted = effects & (Effect.MOVES_VALUES | Effect.PERMUTES_CHANNELS)
    whole = Effect.MOVES_PIXELS in effects and not parted
    inverted = Effect.INVERTS_VALUES in effects
    if whole:
        return "pixel-magnitudes" if inverted else "pixels"
    return "magnitudes" if inverted else "values"
