"""Ciphers: laws, an independent reading of the specification, and statistics with fixed keys."""

import hashlib
import json
from collections import Counter
from itertools import permutations as all_permutations
from typing import Any

import cipher_specification
import numpy as np
import pytest
from cipher_cases import (
    KEY,
    NAMES,
    OTHER_KEY,
    geometries,
    laws,
    make_image,
    products,
    scopes,
    subkeys,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2  # type: ignore[import-untyped]

from fl_ppseg.crypto.ciphers import encryption
from fl_ppseg.crypto.ciphers.cipher import SCOPES, Scope
from fl_ppseg.crypto.ciphers.permutations import draw_permutations
from fl_ppseg.crypto.ciphers.registry import CIPHERS, get_cipher
from fl_ppseg.crypto.ciphers.shuffle import Shuffle, ShuffleParameters
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry, from_blocks, to_blocks
from fl_ppseg.system.errors import InputError

VECTORS: dict[str, Any] = json.loads(
    (cipher_specification.VECTORS / "shuffle.json").read_text("utf-8")
)
SHARE_TOUCHED = {
    "negative-positive": 1 / 2,
    "ffx": 1 / 2,
    "restricted-shuffle": 1 / 3,
    "negative-positive+restricted-shuffle": 2 / 3,
}
"""Of the values of a block, where it is not all of them."""

# Blocks.


def test_block_order_by_hand() -> None:
    """Blocks go row by row, their values by channel, then y, then x."""
    image = np.arange(3 * 4 * 6, dtype=np.uint8).reshape(3, 4, 6)
    blocks = to_blocks(image, 2)
    assert blocks.shape == (6, 12)
    assert blocks[0].tolist() == [0, 1, 6, 7, 24, 25, 30, 31, 48, 49, 54, 55]
    assert blocks[2].tolist() == [4, 5, 10, 11, 28, 29, 34, 35, 52, 53, 58, 59]
    assert blocks[3].tolist() == [12, 13, 18, 19, 36, 37, 42, 43, 60, 61, 66, 67]


def test_block_order_is_that_of_a_patch_embedding() -> None:
    """E x_b + bias, computed on blocks, is what a convolution of the ViT's patch size computes."""
    torch = pytest.importorskip("torch")
    image = make_image(Geometry(3, 4, 2, 3))
    convolution = torch.nn.Conv2d(3, 5, kernel_size=4, stride=4).double()
    expected = convolution(torch.from_numpy(image)[None].double())[0].flatten(1).T
    weight = convolution.weight.detach().numpy().reshape(5, -1)
    found = to_blocks(image, 4) @ weight.T + convolution.bias.detach().numpy()
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-12)


@laws
@given(geometries())
def test_blocks_go_back_to_the_image(geometry: Geometry) -> None:
    image = make_image(geometry)
    blocks = to_blocks(image, geometry.block_size)
    assert blocks.shape == (geometry.num_blocks, geometry.block_length)
    assert Geometry.of_image(image.shape, geometry.block_size) == geometry
    np.testing.assert_array_equal(from_blocks(blocks, geometry), image)


@laws
@given(geometries(), st.sampled_from(["u1", "i4", "f8"]), st.permutations(range(4)))
def test_blocks_of_any_type_and_memory_layout(
    geometry: Geometry, dtype: str, order: list[int]
) -> None:
    """Against slices of the image; its axes, a batch's among them, may lie in any order."""
    size = geometry.block_size
    images = np.stack([make_image(geometry, seed) for seed in (1, 2)]).astype(dtype)
    turned = np.ascontiguousarray(images.transpose(order)).transpose(np.argsort(order))
    turned.setflags(write=False)
    expected = [
        [
            image[:, y : y + size, x : x + size].ravel()
            for y in range(0, image.shape[1], size)
            for x in range(0, image.shape[2], size)
        ]
        for image in images
    ]
    blocks = to_blocks(turned, size)
    assert blocks.dtype == dtype
    np.testing.assert_array_equal(blocks, expected)
    np.testing.assert_array_equal(from_blocks(blocks[::-1], geometry), images[::-1])


# Laws of every cipher.


@laws
@given(st.data(), products, scopes, subkeys)
def test_decrypt_undoes_encrypt(
    data: st.DataObject, name: str, scope: Scope, subkey: SubKey
) -> None:
    geometry = data.draw(geometries(name))
    image = make_image(geometry)
    size = geometry.block_size
    secret = encryption.encrypt(image, subkey, name, block_size=size, scope=scope)
    assert secret.shape == image.shape
    assert secret.dtype == np.uint8
    back = encryption.decrypt(secret, subkey, name, block_size=size, scope=scope)
    np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scope", SCOPES)
def test_two_keys_give_two_ciphertexts(name: str, scope: Scope) -> None:
    image = make_image(Geometry(3, 8, 2, 3))
    first, again, second = (
        encryption.encrypt(image, key, name, block_size=8, scope=scope)
        for key in (KEY, SubKey.from_bytes(bytes(range(32))), OTHER_KEY)
    )
    np.testing.assert_array_equal(first, again)
    wrong = encryption.decrypt(first, OTHER_KEY, name, block_size=8, scope=scope)
    touched = SHARE_TOUCHED.get(name, 1)
    assert (first != image).mean() > 0.9 * touched
    assert (first != second).mean() > 0.9 * touched
    assert (wrong != image).mean() > 0.9 * touched


def test_encryption_leaves_its_input_alone_and_takes_any_memory_layout() -> None:
    image = make_image(Geometry(3, 4, 2, 3))
    before = image.copy()
    rows_last = np.ascontiguousarray(image.transpose(1, 2, 0)).transpose(2, 0, 1)
    image.setflags(write=False)
    first = encryption.encrypt(image, KEY, block_size=4, scope="per-block")
    second = encryption.encrypt(rows_last, KEY, block_size=4, scope="per-block")
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first, second)


# Shuffle.


@laws
@given(geometries(), scopes, subkeys)
def test_values_of_every_block_survive(geometry: Geometry, scope: Scope, subkey: SubKey) -> None:
    image = make_image(geometry)
    size = geometry.block_size
    secret = encryption.encrypt(image, subkey, "shuffle", block_size=size, scope=scope)
    np.testing.assert_array_equal(np.sort(to_blocks(secret, size)), np.sort(to_blocks(image, size)))


@laws
@given(geometries(), scopes)
def test_identity_permutation_is_the_identity(geometry: Geometry, scope: Scope) -> None:
    blocks = to_blocks(make_image(geometry), geometry.block_size)
    num_rows = 1 if scope == "common" else geometry.num_blocks
    identity = ShuffleParameters(
        np.tile(np.arange(geometry.block_length, dtype="u2"), (num_rows, 1))
    )
    np.testing.assert_array_equal(Shuffle().apply(blocks, identity), blocks)
    np.testing.assert_array_equal(Shuffle().invert(blocks, identity), blocks)


def test_shuffle_by_hand() -> None:
    blocks = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    common = ShuffleParameters(np.array([[2, 0, 1]], np.uint8))
    per_block = ShuffleParameters(np.array([[2, 0, 1], [1, 0, 2]], np.uint8))
    assert Shuffle().apply(blocks, common).tolist() == [[30, 10, 20], [60, 40, 50]]
    assert Shuffle().apply(blocks, per_block).tolist() == [[30, 10, 20], [50, 40, 60]]
    assert Shuffle().invert(blocks, common).tolist() == [[20, 30, 10], [50, 60, 40]]


@laws
@given(geometries(), subkeys)
def test_scope_says_how_many_permutations(geometry: Geometry, subkey: SubKey) -> None:
    common = Shuffle().draw(subkey, geometry, "common").permutation
    per_block = Shuffle().draw(subkey, geometry, "per-block").permutation
    assert common.shape == (1, geometry.block_length)
    assert per_block.shape == (geometry.num_blocks, geometry.block_length)
    for permutation in (common, per_block):
        assert (np.sort(permutation) == np.arange(geometry.block_length)).all()
    if geometry.block_size > 3:  # 48! orders and more: two equal rows mean a defect
        assert len(np.unique(per_block, axis=0)) == geometry.num_blocks


def test_equal_blocks_look_equal_under_common_scope_only() -> None:
    block = make_image(Geometry(3, 8, 1, 1))
    image = np.tile(block, (1, 2, 3))
    num_different = {
        scope: len(np.unique(to_blocks(secret, 8), axis=0))
        for scope in SCOPES
        for secret in [encryption.encrypt(image, KEY, block_size=8, scope=scope)]
    }
    assert num_different == {"common": 1, "per-block": 6}


def test_common_permutation_does_not_depend_on_the_image_size() -> None:
    small, large = (
        Shuffle().draw(KEY, geometry, "common").permutation
        for geometry in (Geometry(3, 8, 1, 1), Geometry(3, 8, 4, 5))
    )
    np.testing.assert_array_equal(small, large)


def test_steps_and_scopes_draw_independently() -> None:
    geometry = Geometry(3, 8, 1, 1)
    draws = [
        Shuffle().draw(KEY, geometry, scope, step).permutation[0]
        for scope in SCOPES
        for step in range(3)
    ]
    assert len(np.unique(draws, axis=0)) == 6


# Permutations.


def test_vector_file_is_what_the_reference_makes() -> None:
    assert json.loads(json.dumps(cipher_specification.shuffle_vectors())) == VECTORS
    assert max(case["num_attempts"] for case in VECTORS["cases"]) > 1, "no vector redraws"


@pytest.mark.parametrize("case", VECTORS["cases"])
def test_shuffle_equals_the_vector(case: dict[str, Any]) -> None:
    subkey = SubKey.from_bytes(bytes.fromhex(case["subkey"]))
    size, (grid_h, grid_w), scope = case["block_size"], case["grid"], case["scope"]
    geometry = Geometry(3, size, grid_h, grid_w)
    parameters = Shuffle().draw(subkey, geometry, scope, case["step"])
    digest = hashlib.sha256(parameters.permutation.astype("<u2").tobytes()).hexdigest()
    assert parameters.permutation[-1, :12].tolist() == case["first_values"]
    assert digest == case["permutations_sha256"]

    c, y, x = np.ogrid[:3, : grid_h * size, : grid_w * size]
    blocks = to_blocks(((7 * c + 3 * y + 5 * x) % 256).astype(np.uint8), size)
    secret = from_blocks(Shuffle().apply(blocks, parameters), geometry)
    assert hashlib.sha256(secret.tobytes()).hexdigest() == case["image_sha256"]


def test_permutations_are_uniform() -> None:
    """All 4! orders equally often: chi-square of 24 000 draws with a fixed key."""
    rows = draw_permutations(
        lambda a, n, start=0: KEY.stream(b"chi-square/%d" % a, n, start), 24_000, 4
    )
    counts = Counter(map(tuple, rows.tolist()))
    observed = np.array([counts[order] for order in all_permutations(range(4))])
    assert ((observed - 1000) ** 2 / 1000).sum() < chi2.ppf(0.999, df=23)


@pytest.mark.parametrize("random_bits", [2, 3])
def test_permutations_stay_uniform_when_most_rows_tie(random_bits: int) -> None:
    """With 2 random bits 91 % of rows of 4 tie; keeping them would favour ascending positions."""
    sizes = Counter[int]()

    def few_random_bits(attempt: int, num_bytes: int, start: int = 0) -> bytearray:
        sizes[attempt] += num_bytes
        words = np.frombuffer(KEY.stream(b"few bits/%d" % attempt, num_bytes, start), "<u4")
        return bytearray(((words % 2**random_bits) << 2).astype("<u4"))

    rows = draw_permutations(few_random_bits, 24_000, 4)
    tie_rate = 1 - np.prod([1 - i / 2**random_bits for i in range(4)])
    assert sizes[0] == 24_000 * 16
    assert sizes[1] / sizes[0] == pytest.approx(tie_rate, abs=0.02)
    assert len(sizes) > 5
    counts = Counter(map(tuple, rows.tolist()))
    observed = np.array([counts[order] for order in all_permutations(range(4))])
    assert ((observed - 1000) ** 2 / 1000).sum() < chi2.ppf(0.999, df=23)


def test_tied_rows_alone_are_redrawn_in_order() -> None:
    """Rows 1 and 3 of four tie in attempt 0, row 3 again in attempt 1: worked out by hand."""
    streams = [
        [[3, 2, 1], [5, 5, 1], [1, 2, 3], [9, 1, 9]],
        [[2, 3, 1], [7, 7, 7]],
        [[2, 1, 3]],
    ]

    def stream(attempt: int, num_bytes: int, start: int = 0) -> bytearray:
        words = np.array(streams[attempt], "<u4") << 2 | 3  # the low bits of a word do not count
        assert (words.nbytes, 0) == (num_bytes, start)
        return bytearray(words)

    rows = draw_permutations(stream, 4, 3)
    assert rows.tolist() == [[2, 1, 0], [2, 0, 1], [0, 1, 2], [1, 0, 2]]


@pytest.mark.parametrize("length", [1, 2, 3, 256, 257, 768, 1024, 1025, 3072])
def test_every_length_gives_permutations(length: int) -> None:
    rows = draw_permutations(
        lambda a, n, start=0: KEY.stream(b"length/%d" % a, n, start), 300, length
    )
    assert (np.sort(rows) == np.arange(length)).all()
    means = rows.mean(axis=0)  # each place holds each position equally often
    deviation = np.sqrt((length**2 - 1) / 12 / len(rows))
    assert np.abs(means - (length - 1) / 2).max() <= 5 * deviation


# Refusals.


@pytest.mark.parametrize(
    ("shape", "block_size", "message"),
    [
        ((3, 30, 32), 16, "30x32 pixels does not divide into blocks of 16x16; crop or resize"),
        ((3, 32, 30), 16, "32x30 pixels does not divide"),
        ((3, 8, 8), 16, "8x8 pixels does not divide"),
        ((3, 16, 16), 0, "expected block_size of 1 pixel or more, got 0"),
        ((3, 0, 16), 16, "expected an image of shape \\(channels, height, width\\)"),
        ((1, 16, 16), 16, "expected an image of uint8 \\(3, height, width\\)"),
        ((16, 16, 3), 16, "expected an image of uint8 \\(3, height, width\\)"),
        ((2, 3, 16, 16), 16, "expected an image of uint8 \\(3, height, width\\)"),
    ],
)
@pytest.mark.parametrize("function", [encryption.encrypt, encryption.decrypt])
def test_images_that_do_not_fit_are_refused(
    function: Any, shape: tuple[int, ...], block_size: int, message: str
) -> None:
    image = np.zeros(shape, np.uint8)
    with pytest.raises(InputError, match=message) as caught:
        function(image, KEY, block_size=block_size, scope="common")
    assert "\n" not in str(caught.value)


def test_images_of_floats_are_refused() -> None:
    with pytest.raises(InputError, match="got float32"):
        encryption.encrypt(
            np.zeros((3, 8, 8), np.float32),
            KEY,
            block_size=8,
            scope="common",
        )


def test_unknown_names_list_the_known_ones() -> None:
    image = make_image(Geometry(3, 8, 1, 1))
    with pytest.raises(InputError, match="unknown cipher 'rot13'; choose from shuffle"):
        encryption.encrypt(image, KEY, "rot13", block_size=8, scope="common")
    with pytest.raises(
        InputError, match="unknown block scope 'row'; choose from common, per-block"
    ):
        encryption.encrypt(image, KEY, block_size=8, scope="row")  # type: ignore[arg-type]
    assert get_cipher("shuffle") is CIPHERS["shuffle"]
