"""What label maps tell their thief: in place, in the order of the encrypted pixels, or as counts.

    python benchmarks/label_leaks.py [--images N] [--steps S] [--targets T] [TREE]

Two things are restored of images of places that the networks never saw (of TREE's val images, or
drawn scenes of cities of their own): the label map, by its mIoU and by the share of pixels right in
blocks of several classes, where outlines are; and the image, by SSIM. Every network is the audit's,
with the same steps; the inputs differ:

    nothing              the place of each block alone
    counts               how often each class occurs in each block
    survivors            the canonical form of the ciphertext
    survivors+counts     both
    survivors+labels     what the thief of a node with `labels: encrypted` has: each pixel's label
    in place             what the thief of another node has: the label map (image alone)
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_ppseg.audit.attacks.label_map import labelled_network, labels_in_order, one_hot
from fl_ppseg.audit.attacks.network import DETAIL, WIDTH, Attention, Neighbours
from fl_ppseg.audit.attacks.reader import BATCH, PEAK_RATE, Budget, seen_of
from fl_ppseg.audit.attacks.survivor_network import nothing, survivor_network
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.views import fit
from fl_ppseg.leaks.scores import score_images
from fl_ppseg.learning.evaluation import confusion_counts, score
from fl_ppseg.pretrain import PUBLIC_CITIES, TEST_CITIES
from fl_ppseg.scenes.tree import synthesize

BLOCK = 8
SIZE = (64, 128)
FORMS = ("pixels", "pixel-magnitudes")
Pair = tuple[np.ndarray, np.ndarray]
"""(n, 3, H, W) images and (n, H, W) label maps."""


class LabelReader(nn.Module):
    """(B, K, H, W) -> (B, C, H, W) class scores: the audit's network with another last layer."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        grid = (SIZE[0] // BLOCK, SIZE[1] // BLOCK)
        self.embed = nn.Conv2d(channels, WIDTH, BLOCK, BLOCK)
        self.place = nn.Parameter(torch.zeros(1, WIDTH, *grid))
        self.mix = nn.Sequential(Neighbours(), Attention(), Neighbours(), Attention(), Neighbours())
        self.unfold = nn.Conv2d(WIDTH, 2 * DETAIL * BLOCK**2, 1)
        self.finish = nn.Sequential(
            nn.PixelShuffle(BLOCK),
            nn.Conv2d(2 * DETAIL, 2 * DETAIL, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * DETAIL, num_classes, 3, padding=1),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.finish(self.unfold(self.mix(self.embed(inputs) + self.place)))
        return scores


def counts_of(labels: Tensor, num_classes: int) -> Tensor:
    """(n, H, W) -> (n, C, H, W), the share of each class in its block."""
    means = functional.avg_pool2d(one_hot(labels.numpy(), num_classes), BLOCK)
    return means.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)


def inputs_of(kind: str, form: str, num_classes: int) -> Callable[[np.ndarray, np.ndarray], Tensor]:
    def read(images: np.ndarray, labels: np.ndarray) -> Tensor:
        parts = []
        if kind.startswith("survivors"):
            parts.append(seen_of(images, form, BLOCK, raw=False))
        if kind.endswith("counts"):
            parts.append(counts_of(torch.from_numpy(labels), num_classes))
        if kind.endswith("labels"):
            ordered = labels_in_order(images, labels, form, BLOCK)
            parts.append(one_hot(ordered, num_classes))
        return torch.cat(parts or [torch.zeros(len(images), 1, *SIZE)], dim=1)

    return read


def restored_labels(
    kind: str, form: str, public: Pair, targets: Pair, num_classes: int, steps: int
) -> tuple[float, float]:
    """mIoU of the restored label maps, and the share right in blocks of several classes."""
    torch.manual_seed(0)
    read, rng = inputs_of(kind, form, num_classes), np.random.default_rng(0)
    reader = LabelReader(read(*(each[:1] for each in public)).shape[1], num_classes)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=PEAK_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, steps)
    for _ in range(steps):
        chosen = rng.integers(len(public[0]), size=BATCH)
        images, labels = (each[chosen] for each in public)
        if rng.random() < 0.5:
            images, labels = images[..., ::-1].copy(), labels[..., ::-1].copy()
        truth = torch.from_numpy(labels).long()
        loss = functional.cross_entropy(reader(read(images, labels)), truth, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    reader.eval()
    with torch.inference_mode():
        found = torch.cat(
            [
                reader(read(*(each[at : at + 16] for each in targets))).argmax(1)
                for at in range(0, len(targets[0]), 16)
            ]
        )
    truth = torch.from_numpy(targets[1]).long()
    several = (counts_of(truth.byte(), num_classes) > 0).sum(dim=1) > 1
    known = several & (truth != 255)
    right = float((found == truth)[known].float().mean())
    return score(confusion_counts(found, truth, num_classes)).mIoU, right


def pairs(root: Path, split: str, classes: str) -> Pair:
    dataset = open_dataset(root, load_class_table(classes), (split,))
    scenes = [scene for city in dataset.split(split).values() for scene in city]
    fitted = [fit(*scene.load(), SIZE, "resize") for scene in scenes]
    return np.stack([image for image, _ in fitted]), np.stack([labels for _, labels in fitted])


def spread(pair: Pair, number: int) -> Pair:
    chosen = np.linspace(0, len(pair[0]) - 1, min(number, len(pair[0]))).astype(int)
    return pair[0][chosen], pair[1][chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", nargs="?", type=Path)
    parser.add_argument("--classes", default="cityscapes")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--targets", type=int, default=60)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--forms", nargs="+", default=FORMS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = options.tree or Path(scratch) / "scenes"
        if options.tree is None:
            synthesize(
                root,
                num_train=options.images,
                num_val=options.targets,
                cities=(PUBLIC_CITIES, TEST_CITIES),
                workers=2,
            )
        public, targets = (
            spread(pairs(root, split, options.classes), number)
            for split, number in (("train", options.images), ("val", options.targets))
        )
    num_classes = load_class_table(options.classes).num_classes
    budget = Budget(options.steps, from_scratch=True)
    print(f"{len(public[0])} public images, {len(targets[0])} targets, {options.steps} steps")
    guess = nothing(public[0], block_size=BLOCK, budget=budget).repeat(len(targets[0]), axis=0)
    print(f"image, nothing: SSIM {score_images(targets[0], guess, BLOCK).ssim:.3f}", flush=True)
    for form in options.forms:
        for kind in ("nothing", "counts", "survivors", "survivors+counts", "survivors+labels"):
            miou, right = restored_labels(kind, form, public, targets, num_classes, options.steps)
            print(f"label map, {form}, {kind}: mIoU {miou:.1f}, {right:.3f} right", flush=True)
        own = {"survivors": survivor_network(
            public[0], targets[0], form, block_size=BLOCK, budget=budget
        )}  # fmt: skip
        for name, are_moved in (("survivors+labels", True), ("in place", False)):
            own[name] = labelled_network(
                *(*public, *targets, form),
                num_classes=num_classes,
                block_size=BLOCK,
                are_moved=are_moved,
                budget=budget,
            )
        for name, images in own.items():
            found = score_images(targets[0], images, BLOCK).ssim
            print(f"image, {form}, {name}: SSIM {found:.3f}", flush=True)


if __name__ == "__main__":
    main()
