"""Canonical forms: written again in numpy; the same bits for every key, scope and lifetime."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.invariance import invariant_form
from fl_ppseg.crypto.keys import ClientKey, SubKey, new_salt
from fl_ppseg.data.pixels import to_input
from fl_ppseg.setr.build import build_setr
from fl_ppseg.setr.canonical import FORMS, canonical, gaps
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.setr.weights import load_weights, save_weights

SHAPE = (3, 16, 24)
BLOCK = 8
CIPHERS_OF_FORM = {
    "values": ["shuffle", "shuffle-spatial", "restricted-shuffle"],
    "magnitudes": ["shuffle+negative-positive", "negative-positive", "etc", "shuffle"],
    "pixels": ["shuffle-spatial"],
    "pixel-magnitudes": ["shuffle-spatial+negative-positive", "shuffle-spatial"],
}
"""Ciphers under which each form must not change; coarser forms stand finer ciphers too."""
CASES = [(form, cipher) for form, ciphers in CIPHERS_OF_FORM.items() for cipher in ciphers]
SIZES = {"patch_size": BLOCK, "embed_dim": 16, "depth": 2, "num_heads": 2}


def picture(seed: int, shape: tuple[int, int, int] = SHAPE, levels: int = 256) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.integers(0, levels, shape, dtype=np.uint8)


def form_of(image: np.ndarray, form: str, block_size: int = BLOCK) -> np.ndarray:
    """(3, H, W) bytes -> (3, H, W) bytes of the form, by Python's own sort, block by block."""
    image = image.astype(int)
    if form.endswith("magnitudes"):
        image = abs(2 * image - 255)
    result = np.empty_like(image)
    for top in range(0, image.shape[1], block_size):
        for left in range(0, image.shape[2], block_size):
            place = np.s_[:, top : top + block_size, left : left + block_size]
            block = image[place]
            if form.startswith("pixel"):
                ordered = np.array(sorted(block.reshape(3, -1).T.tolist(), key=by_luma)).T
            else:
                ordered = np.array(sorted(block.ravel().tolist()))
            result[place] = ordered.reshape(block.shape)
    return result.astype(np.uint8)


def by_luma(pixel: list[int]) -> tuple[int, list[int]]:
    red, green, blue = pixel
    return (77 * red + 150 * green + 29 * blue) // 256, pixel


def bytes_of(image: torch.Tensor) -> np.ndarray:
    """The sorted blocks of a canonical form; its gaps follow from them."""
    return ((image[:3] * 255 + 255) / 2).round().to(torch.uint8).numpy()


def applied(image: np.ndarray, form: str, block_size: int = BLOCK) -> torch.Tensor:
    return canonical(to_input(torch.from_numpy(image)[None]), form, block_size)[0]


@given(st.integers(0, 2**32), st.sampled_from(sorted(FORMS)), st.sampled_from([2, 7, 256]))
@settings(max_examples=25)
def test_the_form_is_the_sorted_block(seed: int, form: str, levels: int) -> None:
    image = picture(seed, levels=levels)
    assert np.array_equal(bytes_of(applied(image, form)), form_of(image, form))


@pytest.mark.parametrize("block_size", [1, 2, 4, 16])
def test_every_block_size(block_size: int) -> None:
    image = picture(3, (3, 16, 48))
    for form in FORMS:
        assert np.array_equal(
            bytes_of(applied(image, form, block_size)), form_of(image, form, block_size)
        )


def test_a_form_of_values_is_not_one_of_pixels() -> None:
    image = picture(5)
    assert len({bytes_of(applied(image, form)).tobytes() for form in FORMS}) == len(FORMS)


def test_equal_lumas_are_ordered_by_their_channels() -> None:
    image = np.zeros((3, 2, 2), np.uint8)
    image[:, 0, 0], image[:, 1, 1] = (0, 77, 0), (0, 0, 255)
    # lumas: 77 * 150 / 256 = 45; 255 * 29 / 256 = 28
    assert bytes_of(applied(image, "pixels", 2))[:, 1].tolist() == [[0, 0], [0, 77], [255, 0]]


def subkeys() -> dict[str, Callable[[], SubKey]]:
    client = ClientKey.generate()
    shared = client.client_subkey(new_salt())
    return {
        "disposable": SubKey.generate,
        "derived": lambda: client.view_subkey(
            part="train", city="ulm", file="x", view=0, salt=new_salt()
        ),
        "per-client": lambda: shared,
    }


@pytest.fixture(scope="module")
def models() -> dict[str, SETR]:
    return {form: small_model(form) for form in FORMS}


def small_model(form: str | None) -> SETR:
    config = ModelConfig(**SIZES, decoder_channels=8, weights=None, invariant=form)
    return build_setr(config, 5, SHAPE[1:], seed=0).eval()


@pytest.mark.parametrize(("form", "cipher"), CASES)
@pytest.mark.parametrize("scope", ["common", "per-block"])
@pytest.mark.parametrize("lifetime", ["disposable", "derived", "per-client"])
def test_a_model_gives_the_same_bits_under_every_key(
    form: str, cipher: str, scope: str, lifetime: str, models: dict[str, SETR]
) -> None:
    image = picture(11)
    draw = subkeys()[lifetime]
    ciphertext = [encrypt(image, draw(), cipher, block_size=BLOCK, scope=scope) for _ in range(2)]
    assert all((each != image).any() for each in ciphertext)
    with torch.inference_mode():
        plain, *encrypted = (
            models[form](to_input(torch.from_numpy(each)[None])).main
            for each in (image, *ciphertext)
        )
    assert all(torch.equal(plain, each) for each in encrypted)


@pytest.mark.parametrize(
    ("form", "cipher"),
    [("pixels", "shuffle"), ("values", "negative-positive"), ("pixel-magnitudes", "shuffle")],
)
def test_a_finer_form_does_not_stand_a_stronger_cipher(form: str, cipher: str) -> None:
    image = picture(13)
    ciphertext = encrypt(image, SubKey.generate(), cipher, block_size=BLOCK, scope="common")
    assert not torch.equal(applied(image, form), applied(ciphertext, form))


def test_ciphers_name_forms_that_exist() -> None:
    named = {invariant_form(cipher) for _, cipher in CASES}
    assert named == set(FORMS)


def test_gaps_are_signed_roots() -> None:
    # 0 -> 51 -> 0: steps of 51/255 = 0.2 and back, times 4 on the scale of roots; then the end
    sequence = torch.tensor([0, 51, 0], dtype=torch.int32)
    assert gaps(sequence).tolist() == pytest.approx([1.7888544, -1.7888544, 0.0])


def test_gaps_stand_beside_the_sorted_block() -> None:
    form = applied(picture(23, (3, 2, 2)), "values", 2)
    values = (form[:3].flatten().double() * 255 + 255) / 2
    steps = (form[3:].flatten().double() / 4) ** 2 * 255
    assert torch.allclose(values[0] + steps.cumsum(0)[:-1], values[1:], atol=1e-3)


def test_tensors_keep_the_names_of_the_plain_model() -> None:
    plain, invariant = small_model(None).state_dict(), small_model("values").state_dict()
    assert plain.keys() == invariant.keys()
    changed = {name for name in plain if plain[name].shape != invariant[name].shape}
    assert changed == {EMBEDDING_TENSORS[0]}
    assert invariant[EMBEDDING_TENSORS[0]].shape == (16, 6, BLOCK, BLOCK)


def test_plain_weights_start_all_but_the_embedding(tmp_path: Path) -> None:
    plain, invariant = small_model(None), small_model("values")
    before = {k: v.clone() for k, v in invariant.state_dict().items()}
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(1)
    save_weights(plain, tmp_path / "plain.safetensors")
    load_weights(invariant, tmp_path / "plain.safetensors")
    for name, value in invariant.state_dict().items():
        source = before if name in EMBEDDING_TENSORS else plain.state_dict()
        assert torch.equal(value, source[name]), name


def test_gradients_reach_the_embedding() -> None:
    model = small_model("pixels").train()
    model(to_input(torch.from_numpy(picture(19))[None])).main.sum().backward()
    gradient = model.backbone.patch_embed.proj.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
