"""How near a restored image comes to the true one: SSIM, PSNR, and the correlation of block means.

SSIM (Wang et al. 2004) and PSNR are scikit-image's, on RGB bytes. The correlation is Pearson's,
over the means of the blocks and channels of an image: what a thumbnail shows. All three are means
over images.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
"""(n, 3, H, W) uint8."""

BEST_PSNR: Final = 120.0
"""dB that stand for an image restored without any error, which has no PSNR."""


@dataclass(frozen=True)
class Scores:
    """How near guesses come to the truth; means over images."""

    ssim: float
    """Structural similarity, 1 for equal images."""
    psnr: float
    """Peak signal-to-noise ratio in dB, at most `BEST_PSNR`."""
    correlation: float
    """Of block means, -1 to 1; 0 for a guess whose blocks are all alike."""
    miou: float | None = None
    """What a segmenter of plain images makes of the guesses, percent; None where none was asked."""


def score_images(
    truth: Images, guess: Images, block_size: int, miou: float | None = None
) -> Scores:
    """Compare guesses with the true images, pair by pair.

    Args:
        truth: (n, 3, H, W).
        guess: The same shape.
        block_size: Side M of a block in pixels.
        miou: What a segmenter made of the guesses, to stand beside the rest.

    Raises:
        ValueError: The shapes differ.
    """
    if truth.shape != guess.shape:
        raise ValueError(f"guesses of shape {guess.shape} for images of shape {truth.shape}")
    from skimage.metrics import structural_similarity  # half a second that reports do without

    pairs = list(zip(truth, guess, strict=True))
    return Scores(
        ssim=float(np.mean([structural_similarity(a, b, channel_axis=0) for a, b in pairs])),
        psnr=float(np.mean([_psnr(a, b) for a, b in pairs])),
        correlation=float(np.mean([_correlation(a, b, block_size) for a, b in pairs])),
        miou=miou,
    )


def block_means(images: Images, block_size: int) -> npt.NDArray[np.float64]:
    """(n, 3, H, W) -> (n, 3, H / M, W / M), the mean of each block and channel."""
    n, channels, height, width = images.shape
    grid = (n, channels, height // block_size, block_size, width // block_size, block_size)
    means: npt.NDArray[np.float64] = images.reshape(grid).mean(axis=(3, 5), dtype=np.float64)
    return means


def _psnr(truth: Images, guess: Images) -> float:
    if np.array_equal(truth, guess):
        return BEST_PSNR
    from skimage.metrics import peak_signal_noise_ratio

    return min(BEST_PSNR, float(peak_signal_noise_ratio(truth, guess)))


def _correlation(truth: Images, guess: Images, block_size: int) -> float:
    a, b = (block_means(image[None], block_size).ravel() for image in (truth, guess))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
