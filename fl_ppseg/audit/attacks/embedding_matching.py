"""Embedding matching: an adapted embedding and the public one together reveal the key.

Adversary: holds the public weights, an adapted patch embedding (the thief of a node that keeps a
private one; the coordinator if an adapted one is uploaded), and ciphertexts.
Method: E'[:, l] = sign[l] E[:, index[l]], so the columns of E' are matched to those of E. The best
one-to-one match maximises the sum of |<E'[:, l], E[:, i]>| (Hungarian method), the maximum
likelihood under noise of equal variance; the sign of the product is sign[l]. The adaptation is that
of Kiya et al., Journal of Imaging 8(9) 233, 2022; the matching is this project's.
Must succeed exactly on an embedding as it was adapted, and as long as training has moved columns by
less than they differ. Must fail if the embedding is not adapted to a key, or is withheld.
"""

import numpy as np
import numpy.typing as npt

from fl_ppseg.audit.attacks.undoing import Algorithm, Images, KeyGuess, Undoing, best_match

Matrix = npt.NDArray[np.floating]


def match_embeddings(
    ciphertexts: Images,
    adapted: Matrix,
    public: Matrix,
    *,
    block_size: int,
    algorithm: Algorithm,
) -> KeyGuess:
    """Recover the key of a client from its patch embedding, and decrypt.

    Args:
        ciphertexts: (n, 3, H, W), encrypted under the key that the embedding was adapted to.
        adapted: (D, L) or (D, 3, M, M), possibly trained since.
        public: The same shape, before the adaptation.
        block_size: Side M of a block in pixels.
        algorithm: What the cipher may do.

    Returns:
        The reconstructions and the key; the confidence is the mean cosine of a column with its
        match, 1 for an embedding that was not trained since.
    """
    own, known = (matrix.reshape(len(matrix), -1).T for matrix in (adapted, public))  # L D
    products = own @ known.T
    gain = np.abs(products) if algorithm.inverts else products
    index = best_match(gain, algorithm.moves)
    matched = np.take_along_axis(products, index[:, None], axis=1)[:, 0]
    sign = np.where((matched < 0) & algorithm.inverts, -1, 1).astype(np.int8)
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(known[index], axis=1)
    cosines = sign * matched / np.maximum(lengths, np.finfo(np.float32).tiny)
    undoing = Undoing.signed(index, sign)
    return KeyGuess(undoing.reconstruct(ciphertexts, block_size), undoing, float(cosines.mean()))
