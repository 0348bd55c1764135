"""Make the networks from which an audit's attacks start, and say what starting from them is worth.

    python benchmarks/starting_networks.py make [--out DIR] [--steps N] [NAME ...]
    python benchmarks/starting_networks.py try [--steps N] [--targets N] [NAME ...]

`make` trains a network a NAME (a canonical form, or label-map) on drawn scenes of the public cities
and writes `restorer_NAME_8.safetensors`; the package ships those of the default settings in
fl_ppseg/weights. `try` trains each for the steps of an audit on images of other cities, once from
scratch and once from the shipped network: SSIM, and mIoU of the package's segmenter on what was
restored.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, get_args

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from fl_ppseg.audit.attacks.label_map import answer_network, mean_colours, paint
from fl_ppseg.audit.attacks.reader import STEPS, Budget, Planes, as_input, seen_of, train
from fl_ppseg.audit.attacks.starts import LABEL_MAP, start_file
from fl_ppseg.audit.attacks.starts import STEPS as NUM_STEPS
from fl_ppseg.audit.attacks.survivor_network import survivor_network
from fl_ppseg.audit.segmenter import shipped_segmenter
from fl_ppseg.config.sections import CanonicalForm
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.views import fit
from fl_ppseg.federation.provenance import commit
from fl_ppseg.leaks.scores import Images, score_images
from fl_ppseg.pretrain import PUBLIC_CITIES, TEST_CITIES
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.system.files import write_atomically

BLOCK: Final = 8
SIZE: Final = (64, 128)
CLASSES: Final = 19
NAMES: Final = (*get_args(CanonicalForm), LABEL_MAP)
NUM_SCENES: Final = 4000
LONG: Final = 9600
"""Steps of a network that ships."""
PUBLIC: Final = 400
"""Images of an audit."""


def scenes(root: Path, split: str, number: int) -> tuple[Images, Images]:
    """(n, 3, H, W) images and (n, H, W) label maps."""
    cities = open_dataset(root, load_class_table("cityscapes"), (split,)).split(split)
    found = [scene for city in cities.values() for scene in city][:number]
    pairs = [fit(*scene.load(), SIZE, "resize") for scene in found]
    return np.stack([image for image, _ in pairs]), np.stack([labels for _, labels in pairs])


def make(out: Path, names: list[str], steps: int, scratch: Path) -> None:
    """Train and write the networks."""
    cities = (PUBLIC_CITIES, TEST_CITIES)
    synthesize(scratch, num_train=NUM_SCENES, num_val=len(TEST_CITIES), cities=cities)
    images, labels = scenes(scratch, "train", NUM_SCENES)
    colours = mean_colours(images, labels)
    for name in names:
        begun = time.process_time()

        def read(planes: Planes, name: str = name) -> Tensor:
            if name != LABEL_MAP:
                return seen_of(planes, name, BLOCK, raw=False)
            unseen = seen_of(planes, None, BLOCK, raw=False)
            return torch.cat([unseen, as_input(paint(planes[:, 3], colours))], dim=1)

        own = np.concatenate([images, labels[:, None]], axis=1) if name == LABEL_MAP else images
        reader = train(own, read, BLOCK, budget=Budget(steps, from_scratch=True))
        tensors = {key: value.half().contiguous() for key, value in reader.state_dict().items()}
        file = out / start_file(name, BLOCK).name
        write_atomically(file, save(tensors, {NUM_STEPS: str(steps)}))
        print(f"{file}: {steps} steps, {time.process_time() - begun:.0f} s", flush=True)


def compare(names: list[str], steps: int, num_targets: int, scratch: Path) -> None:
    """Print a markdown table."""
    judge = shipped_segmenter(load_class_table("cityscapes"), SIZE)
    assert judge is not None
    synthesize(scratch, num_train=PUBLIC, num_val=num_targets)  # the default world, not the public
    public, public_labels = scenes(scratch, "train", PUBLIC)
    targets, labels = scenes(scratch, "val", num_targets)
    print(f"commit {commit()}; {len(public)} images, {len(targets)} targets of other cities")
    print(f"mIoU on the targets themselves: {judge.miou(targets, labels):.1f}")
    print(f"| reads | from scratch, {steps} steps | from the shipped network |\n|---|---|---|")
    for name in names:
        cells = []
        for budget in (Budget(steps, from_scratch=True), Budget(steps)):
            if name == LABEL_MAP:
                guess = answer_network(
                    *(public, public_labels, labels),
                    num_classes=CLASSES,
                    block_size=BLOCK,
                    budget=budget,
                )
            else:
                guess = survivor_network(public, targets, name, block_size=BLOCK, budget=budget)
            ssim = score_images(targets, guess, BLOCK).ssim
            cells.append(f"{ssim:.3f}, {judge.miou(guess, labels):.1f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("make", "try"))
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(NAMES))
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--steps", type=int, help=f"default: {LONG} to make, {STEPS} to try")
    parser.add_argument("--targets", type=int, default=60)
    options = parser.parse_args()
    unknown = sorted(set(options.names) - {*NAMES})
    if unknown:
        parser.error(f"expected names among {', '.join(NAMES)}, got {', '.join(unknown)}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if options.what == "make":
            make(options.out, options.names, options.steps or LONG, Path(scratch) / "scenes")
        else:
            steps = options.steps or STEPS
            compare(options.names, steps, options.targets, Path(scratch) / "scenes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
