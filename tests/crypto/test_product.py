"""Products of ciphers: the first factor first, each with its own step; names that are refused."""

import numpy as np
import pytest
from cipher_cases import KEY, laws, make_image, scopes, subkeys
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.crypto.ciphers.cipher import Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.registry import CIPHERS, get_cipher
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry, to_blocks
from fl_ppseg.system.errors import InputError

GEOMETRY = Geometry(3, 6, 2, 3)


@laws
@given(st.permutations(sorted(CIPHERS)).map(lambda names: names[:3]), scopes, subkeys)
def test_a_product_is_its_factors_in_turn(names: list[str], scope: Scope, subkey: SubKey) -> None:
    expected = blocks = to_blocks(make_image(GEOMETRY), 6)
    for step, name in enumerate(names):
        factor = CIPHERS[name]
        expected = factor.apply(expected, factor.draw(subkey, GEOMETRY, scope, step))
    product = get_cipher("+".join(names))
    parameters = product.draw(subkey, GEOMETRY, scope)
    np.testing.assert_array_equal(product.apply(blocks, parameters), expected)
    np.testing.assert_array_equal(product.invert(expected, parameters), blocks)


def test_the_order_of_factors_matters() -> None:
    image = make_image(GEOMETRY)
    one, other = (
        encrypt(image, KEY, name, block_size=6, scope="common")
        for name in ("shuffle+negative-positive", "negative-positive+shuffle")
    )
    assert (one != other).mean() > 0.9


def test_a_product_starts_at_the_step_it_is_given() -> None:
    parameters = get_cipher("shuffle+negative-positive").draw(KEY, GEOMETRY, "common", 3)
    shuffle, inversion = CIPHERS["shuffle"], CIPHERS["negative-positive"]
    for drawn, (cipher, step) in zip(parameters, [(shuffle, 3), (inversion, 4)], strict=True):
        for found, expected in zip(drawn, cipher.draw(KEY, GEOMETRY, "common", step), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "unknown cipher ''; choose from shuffle, shuffle-spatial, .*, or several of them"),
        ("+", "unknown cipher '' in '\\+'; choose from"),
        ("shuffle+", "unknown cipher '' in 'shuffle\\+'"),
        ("shuffle++etc", "unknown cipher '' in 'shuffle\\+\\+etc'"),
        ("shuffle + etc", "unknown cipher 'shuffle ' in"),
        ("shuffle+rot13", "unknown cipher 'rot13' in 'shuffle\\+rot13'; choose from shuffle"),
        ("etc+shuffle+etc", "cipher 'etc\\+shuffle\\+etc' names etc twice; name each factor once"),
    ],
)
def test_names_that_are_no_product_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        get_cipher(name)
    assert "\n" not in str(caught.value)


def test_one_factor_is_the_cipher_itself() -> None:
    assert all(get_cipher(name) is cipher for name, cipher in CIPHERS.items())
