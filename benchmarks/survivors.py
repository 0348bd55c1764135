"""What a network reads from what survives each cipher: the floor under every attack on it.

    python benchmarks/survivors.py --data-root TREE --steps 1500

A network learns, on the images of the training cities, to restore an image from the canonical form
of its blocks, which is all that a ciphertext with keys of its own tells. It is then shown images of
the val cities. Beside it stand the same network that is shown nothing (it knows what streets look
like), and images of plain block means. One seed; SSIM and PSNR of scikit-image.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn
from torch.nn import functional

from fl_ppseg.classes import load_class_table
from fl_ppseg.dataset import open_dataset
from fl_ppseg.pixels import to_input
from fl_ppseg.setr.canonical import FORMS, canonical
from fl_ppseg.views import fit

Survivors = Callable[[Tensor], Tensor]
"""(B, 3, H, W) in [-1, 1] -> (B, C, H, W), what of it is seen."""
WIDTH, DEPTH = 96, 4


class Reader(nn.Module):
    """(B, C, H, W) survivors -> (B, 3, H, W) guess: tokens of blocks, their neighbours, pixels."""

    def __init__(self, channels: int, block_size: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, WIDTH, block_size, block_size)
        self.mix = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(8, WIDTH), nn.GELU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
            for _ in range(DEPTH)
        )
        self.unfold = nn.Sequential(
            nn.Conv2d(WIDTH, 16 * block_size**2, 1),
            nn.PixelShuffle(block_size),
            nn.GELU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(16, 3, 3, padding=1),
        )

    def forward(self, survivors: Tensor) -> Tensor:
        tokens = self.embed(survivors)
        for layer in self.mix:
            tokens = tokens + layer(tokens)
        guess: Tensor = self.unfold(tokens)
        return guess


def survivors_of(form: str, block_size: int) -> Survivors:
    """What is seen of an image: a canonical form, or nothing but its size."""
    if form == "nothing":
        return torch.zeros_like
    return lambda images: canonical(images, form, block_size)


def train(images: Tensor, see: Survivors, block_size: int, steps: int, batch: int) -> Reader:
    """A reader that has learned on (n, 3, H, W) images; mean squared error, AdamW, cosine."""
    torch.manual_seed(0)
    reader = Reader(see(images[:1]).shape[1], block_size)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = images[torch.randint(len(images), (batch,), generator=generator)]
        if torch.rand((), generator=generator) < 0.5:
            chosen = chosen.flip(-1)
        loss = functional.mse_loss(reader(see(chosen)), chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader.eval()


def block_means(images: Tensor, block_size: int) -> Tensor:
    return functional.avg_pool2d(images, block_size)


def score(truth: Tensor, guess: Tensor, block_size: int) -> dict[str, float]:
    """SSIM, PSNR in dB and correlation of block means, of (n, 3, H, W) in [-1, 1]; means over n."""
    pairs = [
        [x.permute(1, 2, 0).double().numpy() for x in pair]
        for pair in zip(truth, guess.clamp(-1, 1), strict=True)
    ]
    means = [
        [block_means(x[None], block_size).flatten().numpy() for x in pair]
        for pair in zip(truth, guess, strict=True)
    ]
    ssim = [structural_similarity(a, b, channel_axis=2, data_range=2) for a, b in pairs]
    psnr = [peak_signal_noise_ratio(a, b, data_range=2) for a, b in pairs]
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in means]
    return {
        "SSIM": float(np.mean(ssim)),
        "PSNR": float(np.mean(psnr)),
        "corr": float(np.nanmean(correlation)),
    }


def images_of(root: Path, split: str, size: tuple[int, int]) -> Tensor:
    scenes = open_dataset(root, load_class_table("cityscapes")).split(split)
    pairs = [scene.load() for city in scenes.values() for scene in city]
    fitted = [fit(image, labels, size, "resize")[0] for image, labels in pairs]
    return to_input(torch.from_numpy(np.stack(fitted)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, default=(64, 128))
    parser.add_argument("--block-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--forms", nargs="+", default=["nothing", *FORMS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, block = tuple(options.size), options.block_size
    own, targets = (images_of(options.data_root, split, size) for split in ("train", "val"))
    print(f"{len(own)} own images, {len(targets)} targets, {size[0]}x{size[1]}, blocks of {block}")
    print(f"{'reads':20}{'SSIM':>8}{'PSNR':>8}{'corr':>8}")

    def show(name: str, guess: Tensor) -> None:
        found = score(targets, guess, block)
        print(f"{name:20}{found['SSIM']:8.3f}{found['PSNR']:8.2f}{found['corr']:8.3f}", flush=True)

    thumbnail = block_means(targets, block)
    show("block means", functional.interpolate(thumbnail, size, mode="bicubic"))
    for form in options.forms:
        see = survivors_of(form, block)
        reader = train(own, see, block, options.steps, options.batch)
        with torch.inference_mode():
            show(form, reader(see(targets)))


if __name__ == "__main__":
    main()
