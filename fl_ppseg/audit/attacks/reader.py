"""Learning to reconstruct images from what an adversary holds of them.

The attacks that learn (survivor network, inverse network, label-conditioned inverse network) differ
only in their input, so their scores can be compared: the network, the training and the number of
steps are the same. From each public image the adversary makes the input that it holds of a target,
trains on these pairs, and reconstructs the targets. Where the package ships a network that was
trained longer on the same kind of input (`starts`), training starts from it; elsewhere the linear
map is initialised by least squares and the residual branch by zero, so it starts from the
regression. The loss is squared error plus weighted 1 - SSIM, since attacks are scored by SSIM.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_ppseg.audit.attacks.network import Reader
from fl_ppseg.audit.attacks.similarity import ssim
from fl_ppseg.audit.attacks.starts import load_start
from fl_ppseg.audit.attacks.surviving import surviving
from fl_ppseg.data.pixels import to_input
from fl_ppseg.setr.least_squares import blocks_of
from fl_ppseg.setr.ridge import Matrix, ridge
from fl_ppseg.system.files import Progress

Planes = npt.NDArray[np.uint8]
"""(n, C, H, W) uint8; channels 0 to 2 are RGB, others, e.g. a label map, are aligned with them."""
Read = Callable[[Planes], Tensor]
"""What an adversary holds of n images, as the network's input (n, K, H, W) float."""
Encrypt = Callable[[Planes], Planes]
"""(n, 3, H, W) uint8 -> (n, 3, H, W) uint8, encryption with the adversary's own keys."""
Loss = Callable[[Reader, Planes], Tensor]
"""Loss () of a network on a batch (b, 3 + k, H, W) of public images and their planes."""

STEPS: Final = 600
BATCH: Final = 4
PEAK_RATE: Final = 2e-3
SHIPPED_RATE: Final = 1e-3
"""Peak learning rates of a new network and of one that starts from a shipped network."""
SSIM_SHARE: Final = 0.5
"""Weight of 1 - SSIM relative to the squared error."""
FITTED_BLOCKS: Final = 2**15
"""Most blocks used for the regression."""
AT_ONCE: Final = 32
"""Images per batch outside training."""


@dataclass(frozen=True)
class Budget:
    """Length of a training; the same for all attacks that are compared."""

    steps: int = STEPS
    """Steps of `batch` images each."""
    seed: int = 0
    """Draws weights, batches and augmentation."""
    on_step: Progress | None = None
    """Called after each step."""
    batch: int = BATCH
    """Images of a step."""
    mirrors: bool = True
    """Whether half of the images are mirrored; not where letters are to be read."""
    from_scratch: bool = False
    """Whether to train a new network even where the package ships one to start from."""


DEFAULT_BUDGET: Final = Budget()


def reconstruct(
    own: Planes,
    targets: Planes,
    read: Read,
    block_size: int,
    encrypt: Encrypt | None = None,
    *,
    guides: int = 0,
    start: str | None = None,
    budget: Budget = DEFAULT_BUDGET,
) -> Planes:
    """Train a network on public images, and reconstruct the targets with it.

    Args:
        own: (n, 3 + k, H, W), public images and k planes aligned with them.
        targets: (m, 3 + k, H, W), ciphertexts of the targets and their planes.
        read: From ciphertexts and planes to the network's input.
        block_size: Side M of a block in pixels.
        encrypt: From public images to ciphertexts; None: `read` needs no ciphertext.
        guides: As `Reader`.
        start: What the first channels of the input are, a canonical form or `starts.LABEL_MAP`,
            to start from the network that ships for it; None: a new network.
        budget: Of the training.

    Returns:
        (m, 3, H, W) uint8.
    """
    reader = train(own, read, block_size, encrypt, guides=guides, start=start, budget=budget)
    with torch.inference_mode():
        guesses = [reader(read(targets[k : k + AT_ONCE])) for k in range(0, len(targets), AT_ONCE)]
    return to_bytes(torch.cat(guesses))


def train(
    own: Planes,
    read: Read,
    block_size: int,
    encrypt: Encrypt | None = None,
    *,
    guides: int = 0,
    start: str | None = None,
    budget: Budget = DEFAULT_BUDGET,
    loss: Loss | None = None,
) -> Reader:
    """Train a reader to reconstruct public images; arguments as in `reconstruct`.

    Args:
        loss: What is minimised; None: the reconstruction's error, as the head of this file says.
    """

    def error(reader: Reader, batch: Planes) -> Tensor:
        truth = as_input(batch)
        guess = reader(read(_encrypted(batch, encrypt)))
        return functional.mse_loss(guess, truth) + SSIM_SHARE * (1 - ssim(guess, truth))

    loss = loss or error
    grid = own.shape[2] // block_size, own.shape[3] // block_size
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(budget.seed)
        reader = Reader(read(own[:1]).shape[1], guides, block_size, grid)
    reader.to(memory_format=torch.channels_last)  # a sixth faster on a CPU
    rate = SHIPPED_RATE
    if budget.from_scratch or start is None or not load_start(reader, start):
        rate = PEAK_RATE
        _start_from_least_squares(reader, own, read, block_size, encrypt)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, budget.steps)
    rng = np.random.default_rng(budget.seed)
    for step in range(1, budget.steps + 1):
        batch = augmented(own, rng, block_size // 2, budget)
        optimizer.zero_grad()
        loss(reader, batch).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if budget.on_step is not None:
            budget.on_step(step, budget.steps)
    return reader.eval()


@torch.no_grad()
def _start_from_least_squares(
    reader: Reader, own: Planes, read: Read, block_size: int, encrypt: Encrypt | None
) -> None:
    """Initialise the linear map from block to block by ridge regression."""
    direct = reader.direct
    assert direct.bias is not None
    num_blocks = len(own) * own.shape[2] * own.shape[3] // block_size**2
    some = own[:: max(1, num_blocks // FITTED_BLOCKS)]

    def batch(first: int) -> tuple[Matrix, Matrix]:
        images = some[first : first + AT_ONCE]
        seen = read(_encrypted(images, encrypt))[:, : direct.in_channels]
        return blocks_of(seen, block_size), blocks_of(as_input(images), block_size)

    fitted = torch.from_numpy(ridge(batch(first) for first in range(0, len(some), AT_ONCE)))
    direct.weight.copy_(fitted[:-1].T.reshape(direct.weight.shape))
    direct.bias.copy_(fitted[-1])


def _encrypted(planes: Planes, encrypt: Encrypt | None) -> Planes:
    """Encrypt the RGB planes and keep the others."""
    if encrypt is None:
        return planes
    return np.concatenate([encrypt(np.ascontiguousarray(planes[:, :3])), planes[:, 3:]], axis=1)


def augmented(own: Planes, rng: np.random.Generator, reach: int, budget: Budget) -> Planes:
    """Draw a batch of images, each flipped or not and shifted by up to `reach` pixels."""
    height, width = own.shape[2:]
    batch = []
    for image in own[rng.integers(len(own), size=budget.batch)]:
        padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), "reflect")
        top, left = rng.integers(2 * reach + 1, size=2)
        moved = padded[:, top : top + height, left : left + width]
        is_mirrored = rng.random() < 0.5 and budget.mirrors
        batch.append(moved[..., ::-1] if is_mirrored else moved)
    return np.stack(batch)


def seen_of(planes: Planes, form: str | None, block_size: int, *, raw: bool) -> Tensor:
    """(n, 3 + k, H, W) uint8 -> (n, K, H, W) float, the network's input from the RGB planes.

    Args:
        planes: Ciphertexts and other planes.
        form: Name of the canonical form to read, as in `surviving`; None: none.
        block_size: Side M of a block in pixels.
        raw: Whether to read the ciphertexts too, as the last 3 channels. If neither is read, the
            input is one channel of zeros.
    """
    images = as_input(planes)
    seen = [] if form is None else [surviving(images, form, block_size)]
    if raw:
        seen.append(images)
    return torch.cat(seen, dim=1) if seen else torch.zeros_like(images[:, :1])


def as_input(planes: Planes) -> Tensor:
    """(n, 3 + k, H, W) uint8 -> (n, 3, H, W) float in [-1, 1], the RGB planes."""
    return to_input(torch.from_numpy(np.ascontiguousarray(planes[:, :3])))


def to_bytes(images: Tensor) -> Planes:
    """(...) float in [-1, 1] -> (...) uint8, the nearest bytes; the inverse of `to_input`."""
    nearest: Planes = images.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).numpy()
    return nearest
