"""An owner's patch embedding: the public one adapted to its key, or drawn; loads PyTorch."""

import os
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.crypto.adaptation import adapted_embedding, linear_form
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays


def require_linear(cipher: str, block_size: int) -> None:
    """Check that an embedding can be adapted to a cipher.

    Args:
        cipher: A name of `CIPHERS`, or a product of them.
        block_size: Side of a block in pixels.

    Raises:
        InputError: It cannot: the cipher does more than permute and invert values.
    """
    linear_form(cipher, SubKey.generate(), block_size)


def adapt_embedding(public: Arrays, protection: ArmConfig, subkey: SubKey) -> Arrays:
    """Adapt the public embedding, so that it reads ciphertexts as that reads plain images.

    Args:
        public: At least `EMBEDDING_TENSORS`.
        protection: Cipher and scope.
        subkey: The client's own.

    Raises:
        InputError: The cipher is not linear.
    """
    cipher, scope = protection.cipher, protection.block_scope
    return _arrays(adapted_embedding(_tensors(public), cipher, scope, subkey))


def draw_embedding(public: Arrays) -> Arrays:
    """Draw a random patch embedding, uniform on the scale of the public one, from the OS.

    Nothing in it depends on a key. The bias, which no key changes, is the public one.

    Args:
        public: At least `EMBEDDING_TENSORS`.
    """
    weight, bias = (_tensors(public)[name] for name in EMBEDDING_TENSORS)
    words = np.frombuffer(os.urandom(4 * weight.numel()), np.uint32).reshape(weight.shape)
    uniform = torch.from_numpy((words / 2**31 - 1).astype(np.float32))  # in [-1, 1]
    drawn = uniform * weight.std() * 3**0.5  # that has a deviation of 1 / sqrt(3)
    return _arrays(dict(zip(EMBEDDING_TENSORS, (drawn, bias.clone()), strict=True)))


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def _arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    return {name: value.numpy() for name, value in tensors.items()}
