"""Inverse network: learn to decrypt from pairs of one's own, made with keys of one's own.

Adversary: whoever holds ciphertexts, knows the cipher and has public images; no key of the targets.
Method: encrypt public images with fresh keys at every step, train the network on (ciphertext,
image), reconstruct the targets. It sees the canonical form too, so that it has all that the
survivor network has. Wins where one map undoes the ciphers of all images (a key that the adversary
shares), or where little moves: what is equal under all keys, or can be told from a single
ciphertext, is learned. Must not beat `survivor_network` where each block has a key of its own: all
that its ciphertext holds beside the canonical form is chance.
"""

from torch import Tensor

from fl_ppseg.audit.attacks.reader import (
    DEFAULT_BUDGET,
    Budget,
    Encrypt,
    Planes,
    reconstruct,
    seen_of,
)


def inverse_network(
    public: Planes,
    ciphertexts: Planes,
    encrypt: Encrypt,
    form: str | None,
    *,
    block_size: int,
    budget: Budget = DEFAULT_BUDGET,
) -> Planes:
    """(m, 3, H, W) uint8 ciphertexts -> (m, 3, H, W) uint8 guesses at their images.

    Args:
        public: (n, 3, H, W) uint8, images of the adversary's own.
        ciphertexts: Of the targets.
        encrypt: The scheme with keys of the adversary's own, drawn anew in each call.
        form: The canonical form that the cipher leaves; None where it names none.
        block_size: Side M of a block in pixels.
        budget: Of the training.
    """

    def read(planes: Planes) -> Tensor:
        return seen_of(planes, form, block_size, raw=True)

    return reconstruct(public, ciphertexts, read, block_size, encrypt, budget=budget)
