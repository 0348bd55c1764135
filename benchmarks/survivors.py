"""What a network reads from what survives each cipher: the floor under every attack on it.

    python benchmarks/survivors.py --data-root TREE --steps 600

The audit's thumbnail and survivor network learn on the images of the training cities and restore
those of the val cities from the canonical form of their blocks, which is all that a ciphertext with
keys of its own tells. Beside them stands the same network that is shown nothing (it knows what
streets look like). One seed.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from fl_ppseg.audit.attacks.reader import STEPS, Budget
from fl_ppseg.audit.attacks.survivor_network import nothing, survivor_network
from fl_ppseg.audit.attacks.thumbnail import thumbnail
from fl_ppseg.audit.scores import Images, score_images
from fl_ppseg.classes import load_class_table
from fl_ppseg.dataset import open_dataset
from fl_ppseg.setr.canonical import FORMS
from fl_ppseg.views import fit


def images_of(root: Path, classes: str, split: str, size: tuple[int, int]) -> Images:
    scenes = open_dataset(root, load_class_table(classes)).split(split)
    pairs = [scene.load() for city in scenes.values() for scene in city]
    return np.stack([fit(image, labels, size, "resize")[0] for image, labels in pairs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--classes", default="cityscapes")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 128))
    parser.add_argument("--block-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, block, budget = tuple(options.size), options.block_size, Budget(options.steps)
    own, targets = (
        images_of(options.data_root, options.classes, split, size) for split in ("train", "val")
    )
    print(f"{len(own)} own images, {len(targets)} targets, {size[0]}x{size[1]}, blocks of {block}")
    print(f"{'reads':28}{'SSIM':>8}{'PSNR':>8}{'corr':>8}")

    def show(name: str, guess: Images) -> None:
        found = score_images(targets, guess, block)
        print(f"{name:28}{found.ssim:8.3f}{found.psnr:8.2f}{found.correlation:8.3f}", flush=True)

    show("nothing", nothing(own, block_size=block, budget=budget).repeat(len(targets), axis=0))
    for form in options.forms:
        show(f"{form}, thumbnail", thumbnail(own, targets, form, block_size=block))
        guess = survivor_network(own, targets, form, block_size=block, budget=budget)
        show(f"{form}, network", guess)


if __name__ == "__main__":
    main()
