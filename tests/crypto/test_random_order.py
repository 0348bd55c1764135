"""Blocks permuted by sorting: the permutations of the specification, in numpy and on a device."""

from collections.abc import Callable
from typing import Any

import cipher_specification
import numpy as np
import pytest
import torch
from cipher_cases import KEY, NAMES, laws, make_image, products, scopes, subkeys
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fl_ppseg.crypto.ciphers import random_words
from fl_ppseg.crypto.ciphers.cipher import SCOPES, Scope
from fl_ppseg.crypto.ciphers.encryption import decrypt, encrypt, encrypt_batch
from fl_ppseg.crypto.ciphers.permutations import draw_permutations, in_random_order
from fl_ppseg.crypto.ciphers.registry import get_cipher
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry, to_blocks

LENGTHS = [1, 2, 3, 100, 128, 129, 256, 257, 768, 1000, 1024, 1025, 1100]
"""With one channel and three: values fit below the random part, or in words of 64 bits, or not."""
Stream = Callable[..., bytearray]


def stream_of(subkey: SubKey) -> Stream:
    def stream(attempt: int, num_bytes: int, start: int = 0) -> bytearray:
        return subkey.stream(b"test/%d" % attempt, num_bytes, start)

    return stream


def read_as_specified(stream: Stream, num_rows: int, length: int) -> tuple[Any, int]:
    """(num_rows, length) permutations and the number of attempts: row by row, no word tagged."""
    word = "<u4" if length <= 1024 else "<u8"
    position_bits = next(bits for bits in range(64) if 2**bits >= length)
    found = np.zeros((num_rows, length), int)
    wanted, attempt = list(range(num_rows)), 0
    while wanted:
        num_bytes = len(wanted) * length * np.dtype(word).itemsize
        words = np.frombuffer(stream(attempt, num_bytes), word).reshape(len(wanted), length)
        tied = []
        for row, random_parts in zip(wanted, words >> position_bits, strict=True):
            found[row] = sorted(range(length), key=random_parts.tolist().__getitem__)
            if len(set(random_parts.tolist())) < length:
                tied.append(row)
        wanted, attempt = tied, attempt + 1
    return found, attempt


@pytest.fixture
def few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that rows of every attempt come in several chunks, the last of which is not full."""
    monkeypatch.setattr(random_words, "_CHUNK_WORDS", 1)


@pytest.mark.usefixtures("few_rows_at_a_time")
@pytest.mark.parametrize("length", LENGTHS)
def test_permutations_are_those_of_the_specification(length: int) -> None:
    expected, num_attempts = read_as_specified(stream_of(KEY), 300, length)
    np.testing.assert_array_equal(draw_permutations(stream_of(KEY), 300, length), expected)
    assert num_attempts > 2 or length not in (768, 1000, 1024), "no row was drawn three times"


@pytest.mark.usefixtures("few_rows_at_a_time")
@pytest.mark.parametrize("num_channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("length", LENGTHS)
def test_values_come_in_the_order_of_their_permutation(length: int, num_channels: int) -> None:
    shape = (300, num_channels, length)
    rows = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rows.setflags(write=False)
    permutations = draw_permutations(stream_of(KEY), 300, length).astype(int)
    expected = np.take_along_axis(rows, permutations[:, None], axis=2)
    np.testing.assert_array_equal(in_random_order(stream_of(KEY), rows), expected)
    tensor = torch.from_numpy(rows.copy())
    np.testing.assert_array_equal(in_random_order(stream_of(KEY), tensor).numpy(), expected)
    np.testing.assert_array_equal(tensor.numpy(), rows)


@settings(max_examples=60)
@given(st.data(), products, scopes, st.binary(min_size=32, max_size=32))
def test_ciphers_are_those_of_the_specification_under_any_key(
    data: st.DataObject, name: str, scope: Scope, secret: bytes
) -> None:
    """Against plain Python that shares nothing with the code under test."""
    size = data.draw(st.integers(1, 4)) * 2 if "etc" in name else data.draw(st.integers(1, 9))
    grid = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    blocks = cipher_specification.encrypted_blocks(secret, name, size, grid, scope)
    c, y, x = np.ogrid[:3, : grid[0] * size, : grid[1] * size]
    plain = ((7 * c + 3 * y + 5 * x) % 256).astype(np.uint8)
    subkey = SubKey.from_bytes(secret)
    found = encrypt(plain, subkey, name, block_size=size, scope=scope)
    assert found.tobytes() == cipher_specification.image_of(blocks, size, grid)
    back = decrypt(found, subkey, name, block_size=size, scope=scope)
    np.testing.assert_array_equal(back, plain)


@laws
@given(products, scopes, subkeys, st.sampled_from([6, 16, 34]))
def test_ways_through_a_cipher_agree(name: str, scope: Scope, subkey: SubKey, size: int) -> None:
    """By its parameters, and by its own way with numpy arrays and with tensors, both directions."""
    geometry, cipher = Geometry(3, size, 5, 7), get_cipher(name)
    blocks = to_blocks(make_image(geometry), size)
    secret = cipher.apply(blocks, cipher.draw(subkey, geometry, scope))
    np.testing.assert_array_equal(cipher.encrypt(blocks, subkey, geometry, scope), secret)
    np.testing.assert_array_equal(cipher.decrypt(secret, subkey, geometry, scope), blocks)
    tensors = [torch.from_numpy(array) for array in (blocks, secret)]
    assert torch.equal(cipher.encrypt(tensors[0], subkey, geometry, scope), tensors[1])
    assert torch.equal(cipher.decrypt(tensors[1], subkey, geometry, scope), tensors[0])


class CountedOperations(TorchDispatchMode):
    """Counts what torch is asked to do."""

    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_of_many_blocks_takes_no_more_operations_than_one_of_few(
    name: str, scope: Scope
) -> None:
    numbers = []
    for side in (1, 8):
        geometry = Geometry(3, 4, side, side)  # 48 values a block: ties are rare, and not here
        blocks = torch.from_numpy(to_blocks(make_image(geometry), 4))
        with CountedOperations() as counted:
            get_cipher(name).encrypt(blocks, KEY, geometry, scope)
        numbers.append(counted.number)
    assert 0 < numbers[1] == numbers[0]


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_threads_change_nothing(library: str) -> None:
    images: Any = np.stack([make_image(Geometry(3, 8, 3, 4), seed) for seed in range(9)])
    images = torch.from_numpy(images) if library == "torch" else images
    keys = [SubKey.from_bytes(bytes([number] * 32)) for number in range(9)]
    one, several = (
        encrypt_batch(
            images, keys, "shuffle+ffx", block_size=8, scope="per-block", num_threads=number
        )
        for number in (1, 4)
    )
    np.testing.assert_array_equal(one, several)
