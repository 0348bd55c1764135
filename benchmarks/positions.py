"""Ciphertext-only attack on one permutation common to all blocks: what it finds of how many blocks.

    python benchmarks/positions.py [--data-root TREE --classes camvid]

The audit's position correlation, for images under one key and, as a control, under keys a block.
Public images of the attacker are procedural scenes of other cities, always; the targets are a city
of the tree, or procedural scenes too. One draw of keys; CPU seconds of one core.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch

from fl_ppseg.audit.attacks.position_correlation import correlate_positions
from fl_ppseg.audit.attacks.undoing import Algorithm
from fl_ppseg.crypto.adaptation import linear_form_of
from fl_ppseg.crypto.ciphers.cipher import Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.views import fit
from fl_ppseg.leaks.scores import Images, score_images
from fl_ppseg.scenes.tree import synthesize

CASES: Final[tuple[tuple[str, Scope, int, tuple[int, int], int], ...]] = (
    ("shuffle", "common", 1, (64, 128), 8),
    ("shuffle", "common", 4, (64, 128), 8),
    ("shuffle", "common", 30, (64, 128), 8),
    ("shuffle+negative-positive", "common", 30, (64, 128), 8),
    ("shuffle-spatial", "common", 30, (64, 128), 8),
    ("shuffle", "common", 1, (256, 512), 8),
    ("shuffle", "common", 1, (256, 512), 16),
    ("shuffle", "common", 30, (64, 128), 16),
    ("shuffle", "per-block", 30, (64, 128), 8),
    ("shuffle-spatial+negative-positive", "per-block", 30, (64, 128), 8),
)
ALGORITHMS = {
    "shuffle": Algorithm("values"),
    "shuffle-spatial": Algorithm("pixels"),
    "shuffle+negative-positive": Algorithm("values", inverts=True),
    "shuffle-spatial+negative-positive": Algorithm("pixels", inverts=True),
}


def images_of(root: Path, classes: str, split: str, number: int, size: tuple[int, int]) -> Images:
    cities = open_dataset(root, load_class_table(classes)).split(split)
    scenes = [scene for city in cities.values() for scene in city][:number]
    return np.stack([fit(*scene.load(), size, "resize")[0] for scene in scenes])


def encrypted(images: Images, cipher: str, scope: Scope, block: int) -> tuple[Images, SubKey]:
    """Under one key where the scope is common, else under one an image."""
    one = SubKey.generate()
    keys = [one if scope == "common" else SubKey.generate() for _ in images]
    sealed = [
        encrypt(image, key, cipher, block_size=block, scope=scope)
        for image, key in zip(images, keys, strict=True)
    ]
    return np.stack(sealed), one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--classes", default="cityscapes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        streets = Path(place) / "streets"
        synthesize(streets, num_train=72, num_val=30, size=(256, 512), seed=3, workers=2)
        root, classes = options.data_root or streets, options.classes
        print(f"{'cipher':36}{'scope':>10}{'images':>7}{'blocks':>8}{'M':>4}", end="")
        print(f"{'key':>7}{'SSIM':>7}{'as is':>7}{'s':>7}")
        for cipher, scope, number, size, block in CASES:
            public = images_of(streets, "cityscapes", "val", 30, size)
            plain = images_of(root, classes, "train", number, size)
            sealed, key = encrypted(plain, cipher, scope, block)
            start = time.process_time()
            found = correlate_positions(
                sealed, public, block_size=block, algorithm=ALGORITHMS[cipher]
            )
            seconds = time.process_time() - start
            share = ""
            if scope == "common":
                scheme = partial(
                    encrypt, subkey=key, cipher=cipher, block_size=block, scope="common"
                )
                truth = linear_form_of(scheme, block)
                assert truth is not None, f"{cipher} is not linear"
                right = (found.undoing.index[0] == truth.index) & (
                    found.undoing.sign[0] == truth.sign
                )
                share = f"{right.mean():.2f}"
            scores = [score_images(plain, x, block).ssim for x in (found.reconstructed, sealed)]
            blocks = number * size[0] * size[1] // block**2
            print(
                f"{cipher:36}{scope:>10}{number:7}{blocks:8}{block:4}{share:>7}"
                f"{scores[0]:7.3f}{scores[1]:7.3f}{seconds:7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
