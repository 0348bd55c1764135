"""Whether a diffusion model restores more from what survives a cipher than the audit's regression.

    python -m benchmarks.diffusion_prior [--cipher NAME] [--images N] [--steps N ...]
        [--shipped N ...] [--similarity W ...] [--targets N] [--samples N] [--ddim N ...] [--seed N]

The survivor network is trained by regression: where many images have the same survivors it returns
something like their mean. A conditional diffusion model draws one of them (Saharia et al. 2022).
Here it is the same network, which reads a noised image and the noise level beside the survivors,
trained by the audit's own loop on the same public images, in as many steps of as many images, and
scored on the same targets (those of attacker_budget.py). `--steps` begins with a new network,
`--shipped` with the one that the package ships; the weights of what is read besides begin with 0.

Of an image x and noise e ~ N(0, 1), at an angle p of 0 to pi/2 (cosine schedule, Nichol and
Dhariwal 2021, in continuous time; a = cos p, s = sin p)

    z = a x + s e                           forward process, Ho et al. 2020, eq. 4
    f = s x - a e, learnt from z            -v of Salimans and Ho 2022, appendix D
    x = a z + s f                           which at p = pi/2 is the regression
    z' = a' x + s' (z - a x) / s            DDIM with eta = 0, Song et al. 2021, eq. 12

by squared error, plus W (1 - SSIM) of x (`--similarity`; the regression has 0.5). Samples are
scored one by one (means over them) and as their mean, which estimates that of all such images. In
one step of DDIM nothing is drawn: it is the network's guess from the survivors and mere noise.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.attacker_budget import BLOCK, SIZE, read
from fl_ppseg.audit.attacks.network import Reader
from fl_ppseg.audit.attacks.reader import (
    AT_ONCE,
    BATCH,
    STEPS,
    Budget,
    Planes,
    as_input,
    seen_of,
    to_bytes,
    train,
)
from fl_ppseg.audit.attacks.similarity import ssim
from fl_ppseg.audit.attacks.survivor_network import nothing, survivor_network
from fl_ppseg.audit.segmenter import Segmenter, shipped_segmenter
from fl_ppseg.crypto.ciphers.invariance import surviving_form
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.federation.provenance import commit
from fl_ppseg.leaks.scores import Images, Scores, score_images
from fl_ppseg.pretrain import PUBLIC_CITIES, TEST_CITIES
from fl_ppseg.scenes.tree import synthesize

OCTAVES: Final = (1, 2, 4)
"""Multiples of the angle whose cosine and sine tell the network the noise level."""
GUIDES: Final = 3 + 2 * len(OCTAVES)
"""Planes of the noised image and the noise level."""
Denoise = Callable[[Tensor, Tensor], Tensor]
"""z (B, 3, H, W) and angles (B) -> f (B, 3, H, W)."""


@dataclass(frozen=True)
class Setting:
    """What all trials share."""

    public: Images
    targets: Images
    labels: Images
    form: str
    judge: Segmenter
    num_samples: int
    ddim_steps: list[int]
    seed: int

    def scores(self, guess: Images) -> Scores:
        miou = self.judge.miou(guess, self.labels)
        return score_images(self.targets, guess, BLOCK, miou)


def with_noise(seen: Tensor, noised: Tensor, angles: Tensor) -> Tensor:
    """(B, K, H, W), (B, 3, H, W), (B) -> (B, K + GUIDES, H, W), the network's input."""
    waves = [wave(k * angles) for k in OCTAVES for wave in (torch.cos, torch.sin)]
    levels = torch.stack(waves, dim=1)[:, :, None, None].expand(-1, -1, *seen.shape[2:])
    return torch.cat([seen, noised, levels], dim=1)


def noised_and_sought(images: Tensor, noise: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) x and e, (B) angles -> z and f."""
    a, s = (wave(angles)[:, None, None, None] for wave in (torch.cos, torch.sin))
    return a * images + s * noise, s * images - a * noise


def restored(noised: Tensor, found: Tensor, angles: Tensor) -> Tensor:
    """(B, 3, H, W) z and f, (B) angles -> x."""
    a, s = (wave(angles)[:, None, None, None] for wave in (torch.cos, torch.sin))
    return a * noised + s * found


def ddim(noise: Tensor, denoise: Denoise, num_steps: int) -> Tensor:
    """(B, 3, H, W) noise -> (B, 3, H, W) a sample each, in [-1, 1]."""
    noised = noise
    for step in range(num_steps, 0, -1):
        angle, after = (math.pi / 2 * k / num_steps for k in (step, step - 1))
        angles = torch.full((len(noise),), angle)
        image = restored(noised, denoise(noised, angles), angles).clamp(-1, 1)
        rest = (noised - math.cos(angle) * image) / math.sin(angle)
        noised = math.cos(after) * image + math.sin(after) * rest
    return noised


def denoiser(setting: Setting, budget: Budget, similarity: float) -> Reader:
    """Train on the public images to remove noise, beside what survives of them."""
    generator = torch.Generator().manual_seed(budget.seed)

    def reads(planes: Planes) -> Tensor:
        """As the least-squares start, which looks at the survivors alone, and the sizes need."""
        seen = seen_of(planes, setting.form, BLOCK, raw=False)
        return with_noise(seen, torch.zeros_like(seen[:, :3]), torch.zeros(len(seen)))

    def loss(reader: Reader, batch: Planes) -> Tensor:
        images = as_input(batch)
        spaced = torch.arange(len(images)) + torch.rand(len(images), generator=generator)
        angles = math.pi / 2 * spaced / len(images)  # one in each of as many parts of the range
        noise = torch.randn(images.shape, generator=generator)
        noised, sought = noised_and_sought(images, noise, angles)
        found = reader(with_noise(seen_of(batch, setting.form, BLOCK, raw=False), noised, angles))
        error = functional.mse_loss(found, sought)
        if similarity:
            error = error + similarity * (1 - ssim(restored(noised, found, angles), images))
        return error

    return train(
        *(setting.public, reads, BLOCK),
        guides=GUIDES,
        start=setting.form,
        budget=budget,
        loss=loss,
    )


@torch.inference_mode()
def samples(setting: Setting, reader: Reader, num_steps: int) -> Tensor:
    """(k, m, 3, H, W), k samples of each of the m targets."""
    generator = torch.Generator().manual_seed(setting.seed)
    drawn = []
    for first in list(range(0, len(setting.targets), AT_ONCE)) * setting.num_samples:
        some = setting.targets[first : first + AT_ONCE]
        seen = seen_of(some, setting.form, BLOCK, raw=False)

        def denoise(noised: Tensor, angles: Tensor, seen: Tensor = seen) -> Tensor:
            found: Tensor = reader(with_noise(seen, noised, angles))
            return found

        noise = torch.randn(some.shape, generator=generator)
        drawn.append(ddim(noise, denoise, num_steps))
    return torch.cat(drawn).reshape(setting.num_samples, *setting.targets.shape)


def mean(scores: list[Scores]) -> Scores:
    """Of samples scored one by one."""
    names = ("ssim", "psnr", "correlation", "miou")
    return Scores(**{name: float(np.mean([getattr(s, name) for s in scores])) for name in names})


def compared(
    setting: Setting, budget: Budget, similarities: list[float]
) -> Iterator[tuple[str, Scores]]:
    """Rows of one budget, in the order of the table."""
    start = f"{'new' if budget.from_scratch else 'shipped'} network, {budget.steps} steps | "
    begun = time.process_time()
    guess = survivor_network(
        *(setting.public, setting.targets, setting.form), block_size=BLOCK, budget=budget
    )
    took = time.process_time() - begun
    yield f"{start}regression ({took:.0f} s)", setting.scores(guess)
    for similarity in similarities:
        begun = time.process_time()
        reader = denoiser(setting, budget, similarity)
        took = time.process_time() - begun
        for num_steps in setting.ddim_steps:
            begun = time.process_time()
            drawn = samples(setting, reader, num_steps)
            sampled = time.process_time() - begun
            what = f"{start}diffusion, W {similarity:g}, DDIM of {num_steps}"
            single = mean([setting.scores(to_bytes(sample)) for sample in drawn])
            yield f"{what}: one sample ({took:.0f} s, then {sampled:.0f} s)", single
            yield f"{what}: mean of {len(drawn)}", setting.scores(to_bytes(drawn.mean(dim=0)))


def rows(setting: Setting, options: argparse.Namespace) -> Iterator[tuple[str, Scores]]:
    """All rows; budgets in rising order."""
    yield "images themselves | -", setting.scores(setting.targets)
    average = setting.public.mean(axis=0, keepdims=True).round().astype(np.uint8)
    yield "none | mean image", setting.scores(average.repeat(len(setting.targets), axis=0))
    for steps in options.steps:
        budget = Budget(steps, setting.seed, from_scratch=True)
        yield from compared(setting, budget, options.similarity)
    for steps in options.shipped:
        yield from compared(setting, Budget(steps, setting.seed), options.similarity)
    blind = nothing(setting.public, block_size=BLOCK, budget=Budget(STEPS, setting.seed))
    guess = blind.repeat(len(setting.targets), axis=0)
    yield f"new network, {STEPS} steps | no image", setting.scores(guess)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--cipher", default="shuffle-spatial+negative-positive")
    add("--images", type=int, default=400)
    add("--steps", type=int, nargs="*", default=[600, 2400])
    add("--shipped", type=int, nargs="*", default=[600])
    add("--similarity", type=float, nargs="+", default=[0.0, 0.5])
    add("--targets", type=int, default=60)
    add("--samples", type=int, default=8)
    add("--ddim", type=int, nargs="+", default=[1, 20], help="steps of a sample")
    add("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    form = surviving_form(options.cipher)
    if form is None:
        parser.error(f"{options.cipher} leaves no form that a network could read")
    judge = shipped_segmenter(load_class_table("cityscapes"), SIZE)
    assert judge is not None
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "scenes"
        cities = (PUBLIC_CITIES, TEST_CITIES)
        synthesize(root, num_train=options.images, num_val=options.targets, cities=cities)
        public, _ = read(root, "train", "cityscapes", options.images)
        targets, labels = read(root, "val", "cityscapes", options.targets)
    setting = Setting(
        *(public, targets, labels, form, judge, options.samples, options.ddim, options.seed)
    )
    print(
        f"commit {commit()}; {options.cipher}; {len(public)} public images, {len(targets)} targets "
        f"of {SIZE[0]}x{SIZE[1]}, blocks of {BLOCK}, batches of {BATCH}, "
        f"seed {options.seed}\n| budget | restored by | SSIM | PSNR | correlation | mIoU |\n"
        "|---|---|---|---|---|---|"
    )
    for name, s in rows(setting, options):
        cells = f"{s.ssim:.3f} | {s.psnr:.2f} | {s.correlation:.3f} | {s.miou:.1f}"
        print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
