"""Batches: numpy and torch, on every device there is, give the bits of one image at a time."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from cipher_cases import KEY, NAMES, OTHER_KEY, geometries, laws, make_image, products, scopes
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.crypto.ciphers import encryption
from fl_ppseg.crypto.ciphers.cipher import SCOPES, Scope
from fl_ppseg.crypto.ciphers.encryption import decrypt_batch, encrypt, encrypt_batch
from fl_ppseg.crypto.ciphers.registry import get_cipher
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry, from_blocks, to_blocks
from fl_ppseg.system.errors import InputError

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
KEYS = [KEY, OTHER_KEY, KEY]


def batch_of(geometry: Geometry, num_images: int = len(KEYS)) -> np.ndarray[Any, Any]:
    return np.stack([make_image(geometry, seed) for seed in range(num_images)])


@laws
@given(st.data(), products, scopes)
def test_a_batch_is_its_images_one_by_one(data: st.DataObject, name: str, scope: Scope) -> None:
    geometry = data.draw(geometries(name))
    size, images = geometry.block_size, batch_of(geometry)
    expected = np.stack(
        [
            encrypt(image, key, name, block_size=size, scope=scope)
            for image, key in zip(images, KEYS, strict=True)
        ]
    )
    secret = encrypt_batch(images, KEYS, name, block_size=size, scope=scope)
    assert isinstance(secret, np.ndarray)
    np.testing.assert_array_equal(secret, expected)
    back = decrypt_batch(secret, KEYS, name, block_size=size, scope=scope)
    np.testing.assert_array_equal(back, images)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", NAMES)
def test_torch_gives_the_bits_of_numpy(name: str, scope: Scope, device: str) -> None:
    images = batch_of(Geometry(3, 10, 2, 3))
    given_images = torch.from_numpy(images).to(device)
    secret = encrypt_batch(given_images, KEYS, name, block_size=10, scope=scope)
    assert (secret.device, secret.dtype) == (given_images.device, torch.uint8)
    expected = encrypt_batch(images, KEYS, name, block_size=10, scope=scope)
    np.testing.assert_array_equal(secret.cpu().numpy(), expected)
    assert torch.equal(given_images.cpu(), torch.from_numpy(images)), "the input was changed"
    back = decrypt_batch(secret, KEYS, name, block_size=10, scope=scope)
    assert torch.equal(back, given_images)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", NAMES)
def test_tensors_elsewhere_are_encrypted_where_they_are(
    name: str, scope: Scope, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a tensor on a GPU, taken by one on the CPU: no part of it becomes an array."""
    monkeypatch.setattr(encryption, "in_memory", lambda images: images)
    images = batch_of(Geometry(3, 10, 2, 3))
    expected = encrypt_batch(images, KEYS, name, block_size=10, scope=scope)
    monkeypatch.setattr(torch.Tensor, "numpy", None)
    how: dict[str, Any] = {"block_size": 10, "scope": scope, "num_threads": num_threads}
    secret = encrypt_batch(torch.from_numpy(images), KEYS, name, **how)
    assert torch.equal(secret, torch.from_numpy(expected))
    back = decrypt_batch(secret, KEYS, name, **how)
    assert torch.equal(back, torch.from_numpy(images))


@pytest.mark.parametrize("device", DEVICES)
def test_any_memory_layout_will_do(device: str) -> None:
    images = batch_of(Geometry(3, 8, 2, 3))
    channels_last = (
        torch.from_numpy(images).to(device).contiguous(memory_format=torch.channels_last)
    )
    secret = encrypt_batch(channels_last, KEYS, block_size=8, scope="per-block")
    expected = encrypt_batch(images, KEYS, block_size=8, scope="per-block")
    np.testing.assert_array_equal(secret.cpu().numpy(), expected)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", NAMES)
def test_one_draw_serves_a_batch(name: str, scope: Scope) -> None:
    """Parameters without a batch axis go for all images of the batch."""
    geometry = Geometry(3, 6, 2, 3)
    images, cipher = batch_of(geometry), get_cipher(name)
    parameters = cipher.draw(KEY, geometry, scope)
    secret = cipher.apply(to_blocks(images, 6), parameters)
    expected = encrypt_batch(images, [KEY] * 3, name, block_size=6, scope=scope)
    np.testing.assert_array_equal(from_blocks(secret, geometry), expected)
    np.testing.assert_array_equal(cipher.invert(secret, parameters), to_blocks(images, 6))


def test_blocks_of_a_tensor_are_those_of_numpy() -> None:
    geometry = Geometry(3, 5, 2, 3)
    images = batch_of(geometry)
    blocks = to_blocks(torch.from_numpy(images), 5)
    np.testing.assert_array_equal(blocks.numpy(), to_blocks(images, 5))
    np.testing.assert_array_equal(from_blocks(blocks, geometry).numpy(), images)


@pytest.mark.parametrize("function", [encrypt_batch, decrypt_batch])
@pytest.mark.parametrize(
    ("images", "keys", "message"),
    [
        (
            np.zeros((2, 3, 8, 8), np.uint8),
            [KEY],
            "expected one key per image and at least one, got 1 keys for 2",
        ),
        (np.zeros((0, 3, 8, 8), np.uint8), [], "got 0 keys for 0"),
        (
            np.zeros((3, 8, 8), np.uint8),
            KEYS,
            "expected an image of uint8 \\(batch, 3, height, width\\)",
        ),
        (torch.zeros(2, 3, 8, 8), KEYS[:2], "got float32 \\(2, 3, 8, 8\\)"),
        (torch.zeros(1, 3, 8, 9, dtype=torch.uint8), [KEY], "8x9 pixels does not divide"),
    ],
)
def test_batches_that_do_not_fit_are_refused(
    function: Any, images: Any, keys: list[SubKey], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        function(images, keys, block_size=8, scope="common")
    assert "\n" not in str(caught.value)


def test_ciphers_do_not_load_torch() -> None:
    code = "import sys, fl_ppseg.crypto.ciphers.encryption; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
