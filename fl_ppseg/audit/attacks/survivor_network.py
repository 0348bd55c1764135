"""Survivor network: reconstruction from the canonical form, which provably survives a cipher.

Adversary: holds ciphertexts and has public images; no key, not even keys of its own.
Method: every ciphertext of an image has the canonical form of the image itself, so the network
trains on the canonical forms of public images and reads those of the targets. Attacks on real
ciphertexts are measured against it. It is a lower bound of what leaks: with a larger network, more
public images or more steps it reconstructs more.
Must beat `nothing` if the form holds any information; with `nothing` the same network reads only
zeros, and returns what such images have in common.
"""

from torch import Tensor

from fl_ppseg.audit.attacks.reader import DEFAULT_BUDGET, Budget, Planes, reconstruct, seen_of


def survivor_network(
    public: Planes,
    ciphertexts: Planes,
    form: str,
    *,
    block_size: int,
    budget: Budget = DEFAULT_BUDGET,
) -> Planes:
    """(m, 3, H, W) uint8 ciphertexts -> (m, 3, H, W) uint8 reconstructions.

    Args:
        public: (n, 3, H, W) uint8, public images.
        ciphertexts: Of the targets; the plain targets would give the same.
        form: The canonical form that the cipher leaves.
        block_size: Side M of a block in pixels.
        budget: Of the training.
    """

    def read(planes: Planes) -> Tensor:
        return seen_of(planes, form, block_size, raw=False)

    return reconstruct(public, ciphertexts, read, block_size, start=form, budget=budget)


def nothing(public: Planes, *, block_size: int, budget: Budget = DEFAULT_BUDGET) -> Planes:
    """(n, 3, H, W) uint8 public images -> (1, 3, H, W) uint8, the best guess at any image."""

    def read(planes: Planes) -> Tensor:
        return seen_of(planes, None, block_size, raw=False)

    return reconstruct(public, public[:1], read, block_size, budget=budget)
