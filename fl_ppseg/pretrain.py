"""`python -m fl_ppseg.pretrain`: the model creator's step.

Starting weights from public, procedural scenes of cities that no client holds. The same options
give the same file on the same machine. The weights of the package came in two steps:

    python -m fl_ppseg.pretrain --out start.safetensors
    python -m fl_ppseg.pretrain --start start.safetensors --out setr_procedural.safetensors
    python -m fl_ppseg.pretrain --start start.safetensors --invariant values \\
        --out setr_procedural_values.safetensors     and so for every other form
    python -m fl_ppseg.pretrain --start start.safetensors --cipher shuffle \\
        --out setr_procedural_shuffled.safetensors
    python -m fl_ppseg.pretrain --start setr_procedural_pixels.safetensors --invariant pixels \\
        --pixel-head --out setr_procedural_pixels_pixel-head.safetensors     and so for the other

An invariant embedding reads what survives encryption, which is the same of plain images: it is
trained on the same plain scenes, beginning as the least-squares fit to the plain embedding of the
start, and meets no other kind of input when it later reads ciphertexts. A linear embedding of
ciphertexts begins likewise, and is trained on ciphertexts, whose keys change with every view that
is read: it has to serve keys that it never met. All these weights have seen the same number of
images, so that they can be compared. A pixel head is trained on weights that stay as they are.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import load_config
from fl_ppseg.config.sections import CanonicalForm, Config
from fl_ppseg.config.unread import refuse_unread, unread_settings
from fl_ppseg.progress.steps import StepProgress, steps
from fl_ppseg.system.command_line import Parser, add_set, image_size, run
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.places import check_file

if TYPE_CHECKING:
    from torch import Tensor

    from fl_ppseg.data.shard import Shard
    from fl_ppseg.setr.model import SETR

PUBLIC_CITIES = {f"public-{k:02d}": 1 for k in range(1, 25)}
"""Cities of the model creator; a city's style follows from its name."""
TEST_CITIES = {f"public-{k:02d}": 1 for k in range(25, 28)}
"""More of them, to score the weights on streets that they have not met."""
MIN_TEST_SCENES = 2 * len(TEST_CITIES)
SHIPPED_SETTINGS = {
    "data.num_train": 2400,
    "data.num_val": 120,
    "data.scene_size": (128, 256),
    "data.scene_seed": 20260416,
    "data.num_views": 8,
    "training.local_epochs": 30,
    "training.learning_rate": 2e-3,
    "training.num_threads": 1,
}
"""What the weights of the package were made with; the model is the config's default."""
FITTED_IMAGES = 1200
"""Public images on which an invariant embedding is fitted to the plain one before it is trained."""
SECOND_EPOCHS = 20
"""Passes over the scenes in the second step, from the weights of the first."""

HEAD_EPOCHS = 4
"""Passes over them of a pixel head."""

_ITS_OWN = "pretrain trains on procedural scenes of Cityscapes' classes, on the CPU"
UNREAD = {
    **{name: f"{_ITS_OWN}; leave it out" for name in ("data.root", "data.classes", "device")},
    **{
        name: "pretrain federates nothing and does not read it; leave it out"
        for name in (
            "name", "arms", "clients", "seeds", "engine", "partition", "federation", "arm_table",
            "cells",
        )
    },
    "num_workers": "pretrain takes --workers N",
    "data.frame_size": "pretrain encrypts windows; leave it out",
    "data.fresh_views": "pretrain makes all of its views first; leave it out",
    "model.weights": "pretrain takes --start FILE",
}  # fmt: skip
"""Settings of a config that this command does not read, with what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Draw public scenes, train on them, write the weights in fp16.

    Raises:
        InputError: For options that do not fit.
    """
    options = _parser().parse_args(argv)
    if options.out.suffix != ".safetensors":
        raise InputError(f"--out {options.out}: expected a file name that ends with .safetensors")
    check_file(options.out)
    refuse_unread(options.set, UNREAD)
    num_scenes = options.num_scenes
    epochs = HEAD_EPOCHS if options.pixel_head else SECOND_EPOCHS
    settings = SHIPPED_SETTINGS | ({"training.local_epochs": epochs} if options.start else {})
    if options.pixel_head and options.start is None:
        raise InputError("--pixel-head trains the head of weights that exist; add --start FILE")
    overrides = {
        "data.num_train": num_scenes,
        "data.num_val": None if num_scenes is None else max(MIN_TEST_SCENES, num_scenes // 20),
        "data.scene_size": options.size,
        "data.scene_seed": options.seed,
        "training.local_epochs": options.epochs,
        "training.learning_rate": options.learning_rate,
        "model.invariant": options.invariant,
        "model.pixel_head": options.pixel_head or None,
        "model.weights": None if options.start is None else str(options.start),
    }
    config = load_config(options.config, [*options.set, "model.weights=null"], overrides, settings)
    refuse_unread(options.set, unread_settings(config))
    if options.cipher is not None:
        from fl_ppseg.crypto.ciphers.registry import get_cipher

        get_cipher(options.cipher)
        if config.model.invariant is not None:
            raise InputError("--cipher trains a linear embedding; leave it or --invariant out")
    if options.start is not None:
        from fl_ppseg.federation.public_weights import check_start

        check_start(options.start)
    pretrain(config, options.cipher, options.out, options.workers, options.quiet)
    return 0


def pretrain(config: Config, cipher: str | None, out: Path, workers: int, quiet: bool) -> None:
    """Make starting weights.

    Args:
        config: `data` says how many scenes at which size, `model` what is trained, `training` how;
            `data.scene_seed` is the seed of everything.
        cipher: What the scenes are encrypted with, under public keys that follow from the seed;
            None: they are read as they are.
        out: The .safetensors file to write, fp16.
        workers: Processes that draw the scenes; the weights do not depend on it.
        quiet: Show no progress and no score.
    """
    import torch

    from fl_ppseg.crypto.public_ciphertexts import EncryptedScenes
    from fl_ppseg.data.classes import load_class_table
    from fl_ppseg.data.shard import open_shard
    from fl_ppseg.federation.public_weights import load_start
    from fl_ppseg.learning.evaluation import evaluate, score
    from fl_ppseg.learning.training import Position, local_update
    from fl_ppseg.setr.build import build_setr
    from fl_ppseg.setr.weights import load_weights, save_weights

    torch.set_num_threads(config.training.num_threads)  # sums depend on it in their last bits
    seed = config.data.scene_seed
    classes = load_class_table("cityscapes")
    with tempfile.TemporaryDirectory() as scratch, steps(sys.stderr, quiet) as progress:
        plain = open_shard([public_shard(config, Path(scratch), workers, progress)])
        drawn = config.model.model_copy(update={"weights": None})
        model = build_setr(drawn, classes.num_classes, config.data.image_size, seed=seed)
        shard = plain
        if cipher is not None:
            shard = EncryptedScenes(plain.parts, cipher, model.patch_size, seed)
        if config.model.weights is not None:
            load_start(model, Path(config.model.weights))
            _approximate(config, model, plain, shard, classes.num_classes)
        update = local_update(
            model,
            model.state_dict(),
            {},
            shard,
            config.training,
            Position(1, 1),
            seed,
            rates=_frozen(model) if config.model.pixel_head else {},
            on_step=lambda done, total: progress.update("training", done, total),
        )
        save_weights(
            update.weights, out, dtype="fp16", grid=model.grid, form=config.model.invariant
        )
        load_weights(model, out)
        counts, _ = evaluate(model, shard.heldout(), classes.num_classes)
    if not quiet:
        print(f"{out}: mIoU {score(counts).mIoU:.1f} on public cities not trained on")


def _frozen(model: "SETR") -> dict[str, float]:
    """Rates that leave every tensor as it is but those of the pixel head."""
    from fl_ppseg.setr.names import PIXEL_HEAD_PREFIX

    names = (name for name, _ in model.named_parameters())
    return {name: 0.0 for name in names if not name.startswith(PIXEL_HEAD_PREFIX)}


def _approximate(
    config: Config, model: "SETR", plain: "Shard", given: "Shard", num_classes: int
) -> None:
    """Start an embedding of ciphertexts from the plain one that the other layers know.

    Args:
        config: As `pretrain` has it.
        model: With the weights of the start.
        plain: The scenes.
        given: The same as the model is given them.
        num_classes: Of the model.
    """
    from fl_ppseg.federation.public_weights import load_start
    from fl_ppseg.setr.build import build_setr
    from fl_ppseg.setr.least_squares import fit_embedding

    if config.model.pixel_head or (given is plain and config.model.invariant is None):
        return
    drawn = config.model.model_copy(update={"invariant": None, "weights": None})
    known = build_setr(drawn, num_classes, config.data.image_size, seed=0)
    load_start(known, Path(str(config.model.weights)))
    num_images, size = min(FITTED_IMAGES, len(plain)), config.training.batch_size
    batches = (range(start, min(start + size, num_images)) for start in range(0, num_images, size))
    pairs = ((_inputs(plain, batch), _inputs(given, batch)) for batch in batches)
    fit_embedding(model.backbone.patch_embed, known.backbone.patch_embed, pairs)


def _inputs(shard: "Shard", images: range) -> "Tensor":
    """(B, 3, H, W) float in [-1, 1], a view of each image, the next image's next view."""
    import torch

    from fl_ppseg.data.pixels import to_input

    views = [number % shard.num_views for number in images]
    return to_input(torch.from_numpy(shard.batch(images, views)[0]))


def public_shard(config: Config, scratch: Path, workers: int, progress: StepProgress) -> Path:
    """Plain views of public scenes, laid out as a client's shard."""
    from clients.vault.assignment import Assignment
    from clients.vault.shards.preparation import prepare_shards
    from fl_ppseg.data.classes import load_class_table
    from fl_ppseg.data.dataset import open_dataset
    from fl_ppseg.scenes.tree import synthesize

    data = config.data.model_copy(update={"frame_size": None})
    synthesize(
        scratch / "scenes",
        num_train=data.num_train,
        num_val=data.num_val,
        size=data.scene_size,
        seed=data.scene_seed,
        cities=(PUBLIC_CITIES, TEST_CITIES),
        workers=workers,
        progress=lambda done, total: progress.update("drawing public scenes", done, total),
    )
    dataset = open_dataset(scratch / "scenes", load_class_table("cityscapes"), ("train", "val"))
    train, heldout = (
        tuple(scene for city in dataset.split(split).values() for scene in city)
        for split in ("train", "val")
    )
    assignment = Assignment(
        vault=scratch / "public",
        client="public",
        train=train,
        heldout=heldout,
        data=data,
        block_size=1,
        seed=data.scene_seed,
        protections={"plain": ArmConfig(note="public scenes")},
    )
    return prepare_shards(assignment)["plain"].shard


FORMS = get_args(CanonicalForm)
_CIPHER_HELP = "train a linear embedding on ciphertexts, a new key for each view"
_PIXEL_HEAD_HELP = "train the pixel head alone, on weights (--start) that stay as they are"
_EPOCHS_HELP = f"passes over them (default: 30; with --start {SECOND_EPOCHS})"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "fl_ppseg.pretrain",
        "Make starting weights from public, procedural scenes of cities that no client "
        "holds. The defaults made the weights that ship with the package.",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    add("--invariant", choices=FORMS, help="train an invariant embedding that reads this form")
    add("--cipher", metavar="NAME", help=_CIPHER_HELP)
    add("--pixel-head", action="store_true", help=_PIXEL_HEAD_HELP)
    add("--start", type=Path, metavar="FILE", help="weights to start from (default: none)")
    add("--num-scenes", type=int, metavar="N", help="public scenes to draw (default: 2400)")
    add("--size", type=image_size, metavar="HxW", help="size of the scenes (default: 128x256)")
    add("--epochs", type=int, metavar="N", help=_EPOCHS_HELP)
    add("--learning-rate", type=float, metavar="X", help="at the start (default: 0.002)")
    add("--seed", type=int, metavar="N", help="seed of scenes and training (default: 20260416)")
    add("--workers", type=int, default=2, metavar="N", help="processes that draw scenes")
    add("--config", metavar="FILE", help="config with the model and the image size")
    add_set(parser)
    add("--quiet", action="store_true", help="show no progress")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
