"""Adapted embeddings: E'x' = Ex, exactly but for the order of the sum, for every linear cipher."""

from fractions import Fraction

import numpy as np
import pytest
import small_federation as small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_ppseg.crypto.adaptation import adapt, adapted_embedding, linear_form
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.pixels import to_input
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.errors import InputError

NOT_LINEAR = {"ffx"}
PRODUCTS = {
    "shuffle+negative-positive",
    "shuffle-spatial+negative-positive",
    "negative-positive+shuffle",
    "etc+shuffle",
    "restricted-shuffle+etc+negative-positive",
}
LINEAR = sorted(set(CIPHERS) - NOT_LINEAR | PRODUCTS)
KEY = SubKey.from_bytes(bytes(range(32)))
BLOCK = 8
LENGTH = 3 * BLOCK**2


def images(seed: int = 0, num: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, 3, 32, 64), np.uint8)


def encrypted(plain: np.ndarray, cipher: str, key: SubKey = KEY) -> np.ndarray:
    return np.stack([encrypt(x, key, cipher, block_size=BLOCK, scope="common") for x in plain])


def test_every_cipher_is_in_these_tests() -> None:
    """The names of the papers: none is left out by being missing."""
    names = {"shuffle", "shuffle-spatial", "negative-positive", "restricted-shuffle", "etc", "ffx"}
    assert names <= set(CIPHERS)


@pytest.mark.parametrize("cipher", LINEAR)
def test_adapted_embedding_of_a_ciphertext_is_the_embedding_of_the_image(cipher: str) -> None:
    """On SETR's own patch embedding, to the rounding of fp32."""
    model, plain = small.model().eval(), images()
    hidden = encrypted(plain, cipher)
    embed = model.backbone.patch_embed
    with torch.inference_mode():
        wanted = embed(to_input(torch.from_numpy(plain)))
        foreign = embed(to_input(torch.from_numpy(hidden)))
        public = model.state_dict()
        model.load_state_dict(public | adapted_embedding(public, cipher, "common", KEY))
        found = embed(to_input(torch.from_numpy(hidden)))
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)
    assert (foreign - wanted).abs().max() > 0.1


@pytest.mark.parametrize("cipher", LINEAR)
def test_the_products_of_the_sum_are_the_same_bits_in_another_order(cipher: str) -> None:
    weight = torch.randn(5, 3, BLOCK, BLOCK, generator=torch.Generator().manual_seed(1))
    form = linear_form(cipher, KEY, BLOCK)
    plain, hidden = (
        to_input(torch.from_numpy(x[:, :, :BLOCK, :BLOCK].reshape(2, 1, LENGTH)))
        for x in (images(), encrypted(images(), cipher))
    )
    before = plain * weight.flatten(1)  # (2, 5, L)
    after = hidden * adapt(weight, form).flatten(1)
    assert torch.equal(after, before[..., torch.from_numpy(form.index)])
    back = torch.from_numpy(np.argsort(form.index))
    assert torch.equal(after[..., back].cumsum(-1)[..., -1], before.cumsum(-1)[..., -1])
    one, other = (sum(map(Fraction, terms[0, 0].tolist())) for terms in (before, after))
    assert one == other


@pytest.mark.parametrize("cipher", LINEAR)
def test_form_is_a_permutation_with_signs_that_the_key_decides(cipher: str) -> None:
    form, again = linear_form(cipher, KEY, BLOCK), linear_form(cipher, KEY, BLOCK)
    other = linear_form(cipher, SubKey.from_bytes(bytes(32)), BLOCK)
    assert sorted(form.index) == list(range(LENGTH))
    assert set(form.sign.tolist()) <= {-1, 1}
    np.testing.assert_array_equal((form.index, form.sign), (again.index, again.sign))
    assert (form.index != other.index).any() or (form.sign != other.sign).any()
    assert (-1 in form.sign) == ("negative-positive" in cipher or "etc" in cipher)


@settings(max_examples=20)
@given(st.sampled_from(LINEAR), st.binary(min_size=32, max_size=32), st.sampled_from([2, 4, 16]))
def test_form_says_what_the_cipher_does(cipher: str, secret: bytes, block_size: int) -> None:
    """x'[l] = sign[l] x[index[l]] for blocks that the form was not found from."""
    key = SubKey.from_bytes(secret)
    form = linear_form(cipher, key, block_size)
    plain = np.random.default_rng(9).integers(0, 256, (3, block_size, block_size), np.uint8)
    hidden = encrypt(plain, key, cipher, block_size=block_size, scope="common")
    x, moved = (2 * block.ravel().astype(int) - 255 for block in (plain, hidden))
    np.testing.assert_array_equal(moved, form.sign * x[form.index])


def test_adapt_by_hand() -> None:
    """Two colours of a block of one pixel change places, the third is inverted."""
    form = linear_form("shuffle", KEY, 1)
    by_hand = type(form)(np.array([1, 0, 2]), np.array([1, 1, -1], np.int8))
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).view(2, 3, 1, 1)
    wanted = torch.tensor([[2.0, 1.0, -3.0], [5.0, 4.0, -6.0]]).view(2, 3, 1, 1)
    assert torch.equal(adapt(weight, by_hand), wanted)
    assert adapt(weight.double(), by_hand).dtype == torch.float64


def test_bias_stays_and_nothing_given_is_written_to() -> None:
    public = small.weights_of(small.model())
    before = small.bits(public)
    found = adapted_embedding(public, "shuffle", "common", KEY)
    assert small.bits(public) == before
    weight, bias = EMBEDDING_TENSORS
    assert found.keys() == set(EMBEDDING_TENSORS)
    assert torch.equal(found[bias], public[bias])
    assert not torch.equal(found[weight], public[weight])


@pytest.mark.parametrize("cipher", ["ffx", "shuffle+ffx", "ffx+negative-positive"])
def test_what_is_not_linear_is_refused_in_one_line(cipher: str) -> None:
    with pytest.raises(InputError, match="does more than permute values and invert them") as caught:
        linear_form(cipher, KEY, BLOCK)
    assert repr(cipher) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("cipher", "scope"), [("shuffle", "per-block"), (None, None)])
def test_one_embedding_cannot_serve_a_key_a_block(cipher: str | None, scope: str | None) -> None:
    with pytest.raises(InputError, match="block scope common only") as caught:
        adapted_embedding(small.model().state_dict(), cipher, scope, KEY)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
