"""How sure the service's guard against plain images is: errors of both kinds, by cipher and scope.

    python benchmarks/plain_images.py [--images N] [--keys K] [TREE ...]

Drawn scenes of the default world, and photographs of trees in Cityscapes layout. Each of N images
of a set is looked at as it is, and encrypted under K keys; `refused` are ciphertexts that the guard
takes for images, `missed` images that it takes for ciphertexts.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fl_ppseg.config.cipher_versions import versions_of
from fl_ppseg.crypto.ciphers.cipher import SCOPES
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.inference.query_spec import QuerySpec
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.service.plain_images import looks_plain

NAMES = (*CIPHERS, "shuffle-spatial+negative-positive", "shuffle+negative-positive")
SIZES = (((64, 128), 8), ((256, 512), 16))
"""(height, width) of the images, and the side of a block."""


def spec_of(cipher: str, scope: str, block: int, size: tuple[int, int]) -> QuerySpec:
    return QuerySpec.model_validate(
        {
            "key": "per-image",
            "cipher": cipher,
            "versions": versions_of(cipher),
            "block_size": block,
            "scope": scope,
            "image_size": size,
            "fit": "resize",
        }
    )


def pictures(root: Path, number: int, size: tuple[int, int]) -> list[np.ndarray]:
    """(3, H, W) uint8, evenly spread over a tree."""
    folder = root / "leftImg8bit"
    files = sorted(each for each in folder.rglob("*") if each.suffix in {".png", ".jpg"})
    chosen = [files[place] for place in np.linspace(0, len(files) - 1, number).astype(int)]
    found = []
    for file in chosen:
        picture = Image.open(file).convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
        found.append(np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)))
    return found


def sets(trees: list[Path], number: int) -> Iterator[tuple[str, int, list[np.ndarray]]]:
    for size, block in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            drawn = Path(folder) / "tree"
            synthesize(drawn, num_train=number, num_val=0, size=size)
            yield f"drawn {size[0]}x{size[1]}", block, pictures(drawn, number, size)
        for tree in trees:
            yield f"{tree.name} {size[0]}x{size[1]}", block, pictures(tree, number, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--keys", type=int, default=3)
    parser.add_argument("trees", nargs="*", type=Path)
    options = parser.parse_args()
    head = ("set", "cipher", "scope", "ciphertexts", "refused", "images", "missed")
    print(*head, sep=" | ")
    for name, block, images in sets(options.trees, options.images):
        for cipher in NAMES:
            for scope in SCOPES:
                spec = spec_of(cipher, scope, block, images[0].shape[1:])
                missed = sum(not looks_plain(image, spec) for image in images)
                refused = sum(
                    looks_plain(
                        encrypt(image, SubKey.generate(), cipher, block_size=block, scope=scope),
                        spec,
                    )
                    for image in images
                    for _ in range(options.keys)
                )
                counts = (len(images) * options.keys, refused, len(images), missed)
                print(name, cipher, scope, *counts, sep=" | ", flush=True)


if __name__ == "__main__":
    main()
