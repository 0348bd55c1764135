"""Inverse network: learn to decrypt from public images encrypted with the adversary's own keys.

Adversary: holds ciphertexts, knows the cipher and has public images; no key of the targets.
Method: encrypt public images with fresh keys at every step, train the network on (ciphertext,
image) pairs, reconstruct the targets. It reads the canonical form too, so it has all that the
survivor network has.
Must succeed if one map decrypts all images (a key that the adversary shares), or if little changes:
it learns what is equal under all keys, or can be inferred from a single ciphertext. Must not beat
`survivor_network` with one key per block: beside the canonical form a ciphertext is then random.
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
    """(m, 3, H, W) uint8 ciphertexts -> (m, 3, H, W) uint8 reconstructions.

    Args:
        public: (n, 3, H, W) uint8, public images.
        ciphertexts: Of the targets.
        encrypt: The cipher with the adversary's own keys, drawn anew in each call.
        form: The canonical form that the cipher leaves; None if it has none.
        block_size: Side M of a block in pixels.
        budget: Of the training.
    """

    def read(planes: Planes) -> Tensor:
        return seen_of(planes, form, block_size, raw=True)

    return reconstruct(public, ciphertexts, read, block_size, encrypt, start=form, budget=budget)
