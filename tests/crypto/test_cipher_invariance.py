"""Forms: what `invariant_form` names survives every key, what is finer does not; `etc` and an
inversion alone leave more, which `surviving_form` names."""

import numpy as np
import pytest
import torch
from cipher_cases import (
    KEY,
    Bytes,
    geometries,
    laws,
    make_image,
    pixels_of,
    products,
    scopes,
    subkeys,
)
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.crypto.ciphers.cipher import Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.invariance import invariant_form, surviving_form
from fl_ppseg.crypto.ciphers.registry import CIPHERS, get_cipher
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry, to_blocks
from fl_ppseg.data.pixels import to_input
from fl_ppseg.setr.canonical import FORMS, canonical
from fl_ppseg.system.errors import InputError

EXPECTED = {
    "shuffle": "values",
    "shuffle-spatial": "pixels",
    "negative-positive": "magnitudes",
    "ffx": None,
    "restricted-shuffle": "values",
    "etc": "magnitudes",
    "shuffle+negative-positive": "magnitudes",
    "negative-positive+shuffle": "magnitudes",
    "shuffle-spatial+negative-positive": "pixel-magnitudes",
    "negative-positive+shuffle-spatial": "pixel-magnitudes",
    "shuffle-spatial+shuffle": "values",
    "shuffle-spatial+restricted-shuffle": "values",
    "shuffle-spatial+etc": "magnitudes",
    "shuffle-spatial+negative-positive+shuffle": "magnitudes",
    "shuffle+ffx": None,
}
FINER = {
    "values": ["pixels"],
    "magnitudes": ["values", "pixels"],
    "pixels": [],
    "pixel-magnitudes": ["pixels", "values"],
    None: sorted(FORMS),
}
"""Forms that keep more than the named one, in some respect."""


ALL: dict[str, tuple[str | None, str | None]] = {
    "shuffle": ("values", "values"),
    "shuffle-spatial": ("pixels", "pixels"),
    "negative-positive": ("placed-magnitudes", "placed-magnitudes"),
    "ffx": (None, None),
    "restricted-shuffle": (None, "values"),
    "etc": ("sub-blocks", "sub-blocks"),
    "shuffle+negative-positive": ("magnitudes", "magnitudes"),
    "negative-positive+shuffle-spatial": ("pixel-magnitudes", "pixel-magnitudes"),
    "shuffle-spatial+negative-positive+shuffle": ("magnitudes", "magnitudes"),
    "restricted-shuffle+shuffle": ("values", "values"),
    "restricted-shuffle+negative-positive": (None, "magnitudes"),
    "negative-positive+restricted-shuffle": ("placed-magnitudes", "magnitudes"),
    "etc+shuffle": ("sub-blocks", "magnitudes"),
    "shuffle+etc": ("values", "magnitudes"),
    "etc+shuffle+negative-positive": ("magnitudes", "magnitudes"),
    "shuffle-spatial+ffx": ("pixels", None),
    "ffx+shuffle": (None, None),
}
"""By cipher: on what alone the distribution of a ciphertext depends, what every key leaves."""


def survivors(image: Bytes, form: str, size: int) -> Bytes:
    """What a form keeps of each block, as a multiset in lexicographic order."""
    pixels = pixels_of(image, size).astype(np.int64)  # N P 3
    if form.endswith("magnitudes"):
        pixels = np.abs(2 * pixels - 255)
    if form.startswith("pixel"):
        codes = pixels @ (2**16, 2**8, 1)  # a triple is one number
        return np.sort(codes, axis=1)
    return np.sort(pixels.reshape(len(pixels), -1), axis=1)


@pytest.mark.parametrize(("name", "form"), EXPECTED.items())
def test_the_form_of_a_product_is_that_of_all_its_effects(name: str, form: str | None) -> None:
    assert invariant_form(name) == form


def test_every_cipher_is_expected() -> None:
    assert set(CIPHERS) <= set(EXPECTED)
    assert {form for form in EXPECTED.values() if form} == set(FORMS)


@pytest.mark.parametrize("name", ALL)
def test_what_a_ciphertext_depends_on_and_what_can_be_read_off_it(name: str) -> None:
    assert (get_cipher(name).form, surviving_form(name)) == ALL[name]


def test_every_cipher_says_what_its_ciphertexts_depend_on() -> None:
    assert set(CIPHERS) <= set(ALL)


@laws
@given(st.data(), products, scopes, subkeys)
def test_the_form_survives_every_key(
    data: st.DataObject, name: str, scope: Scope, subkey: SubKey
) -> None:
    form = invariant_form(name)
    geometry = data.draw(geometries(name))
    size, image = geometry.block_size, make_image(geometry)
    secret = encrypt(image, subkey, name, block_size=size, scope=scope)
    if form is None:
        assert "ffx" in name.split("+")
        return
    np.testing.assert_array_equal(survivors(secret, form, size), survivors(image, form, size))
    plain, ciphertext = (
        canonical(to_input(torch.from_numpy(each)[None]), form, size) for each in (image, secret)
    )
    assert torch.equal(plain, ciphertext)


@pytest.mark.parametrize("scope", ["common", "per-block"])
@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "negative-positive"])
def test_a_finer_form_does_not_survive(name: str, scope: Scope) -> None:
    image = make_image(Geometry(3, 8, 2, 3))
    secret = encrypt(image, KEY, name, block_size=8, scope=scope)
    for form in FINER[EXPECTED[name]]:
        assert (survivors(secret, form, 8) != survivors(image, form, 8)).any(axis=1).all(), form


def test_inversion_alone_would_leave_more_than_any_form_keeps() -> None:
    """Places and |2v - 255| survive: the docstring's reason for the coarse form, and its price."""
    image = make_image(Geometry(3, 8, 2, 3)).astype(int)
    secret = encrypt(
        image.astype(np.uint8), KEY, "negative-positive", block_size=8, scope="per-block"
    ).astype(int)
    np.testing.assert_array_equal(abs(2 * secret - 255), abs(2 * image - 255))
    assert (to_blocks(secret, 8) != to_blocks(image, 8)).any()


def test_unknown_ciphers_have_no_form() -> None:
    with pytest.raises(InputError, match="unknown cipher 'rot13' in 'shuffle\\+rot13'"):
        invariant_form("shuffle+rot13")
