"""Survivor network: what one network reconstructs from what provably survives a cipher.

Adversary: whoever holds ciphertexts and has public images; no key, not even keys of its own.
Method: every ciphertext of an image has the canonical form of the image itself, so the network
trains on the canonical forms of public images and reads those of the targets. Attacks on real
ciphertexts are measured against it. It bounds what a cipher leaves from below, by as much as this
network, its public images and its steps allow: with more of them it reconstructs more.
Wins over `nothing` wherever the form tells anything; with `nothing` the same network sees only
zeros, and paints what such images have in common.
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
    """(m, 3, H, W) uint8 ciphertexts -> (m, 3, H, W) uint8 guesses at their images.

    Args:
        public: (n, 3, H, W) uint8, images of the adversary's own.
        ciphertexts: Of the targets; the targets themselves would give the same.
        form: The canonical form that the cipher leaves.
        block_size: Side M of a block in pixels.
        budget: Of the training.
    """

    def read(planes: Planes) -> Tensor:
        return seen_of(planes, form, block_size, raw=False)

    return reconstruct(public, ciphertexts, read, block_size, budget=budget)


def nothing(public: Planes, *, block_size: int, budget: Budget = DEFAULT_BUDGET) -> Planes:
    """(n, 3, H, W) uint8 public images -> (1, 3, H, W) uint8, the guess at any other image."""

    def read(planes: Planes) -> Tensor:
        return seen_of(planes, None, block_size, raw=False)

    return reconstruct(public, public[:1], read, block_size, budget=budget)
