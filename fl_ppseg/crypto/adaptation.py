"""Patch embeddings adapted to a key: E' with E'x' = Ex for every block x and its ciphertext x'.

Possible where a cipher permutes the values of a block and inverts some of them (v -> 255 - v): with
x = (2v - 255)/255 that is x'[l] = sign[l] x[index[l]], so E' takes the columns of E in the same
order, with the same signs, and its bias stays.

Source: Kiya et al., Journal of Imaging 8(9) 233, 2022; Sueyoshi et al., arXiv 2507.12730, 2025.
An adapted embedding beside the public one is the key: match their columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fl_ppseg.crypto.ciphers.cipher import Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry, from_blocks, to_blocks
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.errors import InputError

Blocks = npt.NDArray[np.uint8]
Encrypt = Callable[[Blocks], Blocks]
"""(3, H, W) uint8 -> (3, H, W) uint8."""

NUM_CHECKS = 8
"""Blocks of noise on which the form that was found must agree with the cipher."""


@dataclass(frozen=True, eq=False, repr=False)  # key material: printing it shows nothing
class SignedPermutation:
    """What a linear cipher does to a block: x'[l] = sign[l] * x[index[l]], x = (2v - 255)/255."""

    index: npt.NDArray[np.intp]
    """(L,) where each value of an encrypted block comes from."""
    sign: npt.NDArray[np.int8]
    """(L,) 1, or -1 where it is inverted."""


def linear_form(cipher: str, subkey: SubKey, block_size: int) -> SignedPermutation:
    """Find what a cipher does to every block under a key, with block scope `common`.

    Args:
        cipher: A name of `CIPHERS`, or a product of them.
        subkey: The key.
        block_size: Side M of a block in pixels; L = 3 M².

    Raises:
        InputError: The cipher does anything else than permute and invert the values of a block.
    """
    form = linear_form_of(
        lambda image: encrypt(image, subkey, cipher, block_size=block_size, scope="common"),
        block_size,
    )
    if form is None:
        raise InputError(
            f"cipher {cipher!r} does more than permute values and invert them: no embedding can "
            "be adapted to its key; choose another cipher, or embedding: uploaded"
        )
    return form


def linear_form_of(encrypted: Encrypt, block_size: int) -> SignedPermutation | None:
    """What an encryption does to every block, told from blocks that it encrypts.

    Black blocks show the signs, the digits of the positions in base 256 show the order, blocks of
    noise check both.

    Args:
        encrypted: Does the same to every block of an image, whichever the image.
        block_size: Side M of a block in pixels; L = 3 M².

    Returns:
        None where it does anything else than permute the values of a block and invert some.
    """
    length = 3 * block_size**2
    shifts = np.arange(0, (length - 1).bit_length(), 8)[:, None]
    digits = ((np.arange(length) >> shifts) & 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (NUM_CHECKS, length), np.uint8)
    probes = np.vstack([np.zeros((1, length), np.uint8), digits, noise])
    geometry = Geometry(3, block_size, grid_h=1, grid_w=len(probes))
    image = encrypted(from_blocks(probes, geometry))
    black, moved, hidden = np.split(to_blocks(image, block_size), [1, 1 + len(digits)])

    sign = np.where(black[0] == 0, 1, -1).astype(np.int8)
    index = (_inverted(moved, sign).astype(np.intp) << shifts).sum(axis=0)
    is_linear = (
        np.isin(black, (0, 255)).all()
        and np.array_equal(np.sort(index), np.arange(length))
        and np.array_equal(_inverted(noise[:, index], sign), hidden)
    )
    return SignedPermutation(index, sign) if is_linear else None


def adapt(weight: Tensor, form: SignedPermutation) -> Tensor:
    """(D, 3, M, M) -> (D, 3, M, M), E'[:, l] = sign[l] E[:, index[l]]; rounds nothing.

    Args:
        weight: Patch embedding for plain blocks, values of a block in order (C, y, x).
        form: What the cipher does to a block.
    """
    index = torch.from_numpy(form.index).to(weight.device)
    sign = torch.from_numpy(form.sign).to(weight)
    return (weight.flatten(1)[:, index] * sign).view_as(weight)


def adapted_embedding(
    public: Mapping[str, Tensor], cipher: str | None, scope: Scope | None, subkey: SubKey
) -> dict[str, Tensor]:
    """The tensors of a patch embedding that reads ciphertexts as the public one reads plain images.

    Args:
        public: At least `EMBEDDING_TENSORS`; their patch is the cipher's block.
        cipher: A name of `CIPHERS`, or a product of them.
        scope: Block scope of the ciphertexts.
        subkey: Their key.

    Raises:
        InputError: For no cipher or one that is not linear, or block scope `per-block`.
    """
    if cipher is None or scope != "common":
        raise InputError(
            f"cipher {cipher!r} with block scope {scope}: one embedding serves all blocks, so it "
            "can be adapted to a cipher with block scope common only"
        )
    weight, bias = (public[name] for name in EMBEDDING_TENSORS)
    form = linear_form(cipher, subkey, weight.shape[-1])
    return dict(zip(EMBEDDING_TENSORS, (adapt(weight, form), bias.clone()), strict=True))


def _inverted(blocks: Blocks, sign: npt.NDArray[np.int8]) -> Blocks:
    """v -> 255 - v where the sign is -1."""
    return np.where(sign > 0, blocks, 255 - blocks)
