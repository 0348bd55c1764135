"""What survives a cipher whatever its key, as names of canonical forms."""

from fl_ppseg.crypto.ciphers.cipher import Effect
from fl_ppseg.crypto.ciphers.forms import leaves, moved
from fl_ppseg.crypto.ciphers.product import Product
from fl_ppseg.crypto.ciphers.registry import get_cipher


def invariant_form(name: str) -> str | None:
    """Return the canonical form that every key of a cipher leaves and an embedding can read.

    A form must forget all that some key can change, and an embedding keeps no places:
        - Codebooks change what a value is, and nothing of it is left to order: no form.
        - Inversion takes the sign of v - 127.5 and leaves |2v - 255|: magnitudes.
        - Pixels that move whole keep their triples: these, in an order of their own. Once values
          move alone, or channels change places, nobody knows which values were a pixel: all values
          of the block, sorted.
    Each factor of a product may do all that it can, so the effects of all count together and the
    coarser form holds. Inversion alone moves nothing: it gets the sorted magnitudes, as if values
    had moved. `etc` leaves much more than the form that is read of it: see `surviving_form`.

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
    form = moved(effects)
    return "magnitudes" if form == "placed-magnitudes" else form


def surviving_form(name: str) -> str | None:
    """Return the finest known form that anybody can read off a ciphertext, whatever the key.

    It is the form on which alone the distribution of a block's ciphertext depends (`form` of the
    cipher), where no key changes that: of every cipher but `ffx` and `restricted-shuffle`, and of
    products that move and invert. Of other ciphers and products more survives, in ways that no form
    names: at least what an embedding reads.

    Args:
        name: A cipher or a product, as `get_cipher` takes it.

    Returns:
        A name of `forms`; None where there is none.

    Raises:
        InputError: no such cipher.
    """
    cipher = get_cipher(name)
    factors = cipher.factors if isinstance(cipher, Product) else (cipher,)
    form = cipher.form
    if form is not None and all(leaves(factor, form) for factor in factors):
        return form
    return invariant_form(name)
