"""What distillation gives the head that scores the pixels of ciphertexts, on public scenes.

    python -m benchmarks.distilled_head [--num-scenes N] [--epochs N] [--seed N] [--out DIR]

The model creator's step for a pixel head (`python -m fl_ppseg.pretrain --pixel-head`), from the
same start, on the same views in the same order, with and without a teacher: every head of `HEADS`
takes its step on each batch. A teacher sees the public images as they are and scores their pixels
in place; the head scores the pixels of a block as a set, so that scores which would be permuted
with the labels give the same loss as these in place. With the mix m and the temperature T the loss
of a pixel is

    (1 - m) CE(labels, s) + m T^2 KL(softmax(t / T) || softmax(s / T))

(Hinton et al. 2015, arXiv:1503.02531, section 2; s: scores of the head with the decoder's means, as
a node has them; t: scores of the teacher). Printed are mIoU on public cities not trained on, of the
answer that a node has and of the owner's, which puts the decoder's scores in place, and the
difference from the head without a teacher with its 95 % interval over the images.
"""

import argparse
import copy
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fl_ppseg.config.loading import load_config
from fl_ppseg.config.sections import Config, TrainingConfig
from fl_ppseg.data.classes import IGNORE_INDEX
from fl_ppseg.data.pixels import to_input
from fl_ppseg.data.shard import Shard, open_shard
from fl_ppseg.federation.provenance import commit
from fl_ppseg.learning.batches import batches, steps_of
from fl_ppseg.learning.bootstrap import draws_of, percentile_interval, resampled
from fl_ppseg.learning.evaluation import evaluate, mean_iou
from fl_ppseg.learning.losses import pixel_loss
from fl_ppseg.learning.reach import poly
from fl_ppseg.learning.training import seed_of
from fl_ppseg.pretrain import HEAD_EPOCHS, SHIPPED_SETTINGS, public_shard
from fl_ppseg.progress.steps import steps as progress_of
from fl_ppseg.setr.build import build_setr
from fl_ppseg.setr.model import SETR, Logits
from fl_ppseg.setr.pixel_head import PixelHead, flattened, in_place, resized
from fl_ppseg.setr.shipped import shipped_weights
from fl_ppseg.setr.weights import load_weights, save_weights

FORM: Final = "pixel-magnitudes"
CLASSES: Final = 19
Answers = NDArray[np.int64]
"""(N, CLASSES, CLASSES) confusion counts of N images, rows = truth."""


class Recipe(NamedTuple):
    teacher: str | None = None
    temperature: float = 1.0
    mix: float = 0.0
    """Weight of the teacher; the rest is that of the labels."""


HEADS: Final = {
    "labels alone": Recipe(),
    "decoder, T 2, mix 0.5": Recipe("decoder", 2, 0.5),
    "plain, T 2, mix 0.5": Recipe("plain", 2, 0.5),
    "fusion, T 2, mix 0.5": Recipe("fusion", 2, 0.5),
    "colours, T 1, mix 0.5": Recipe("colours", 1, 0.5),
    "colours, T 2, mix 0.5": Recipe("colours", 2, 0.5),
    "colours, T 4, mix 0.5": Recipe("colours", 4, 0.5),
    "colours, T 2, mix 1": Recipe("colours", 2, 1),
}
"""What each head learns from. Teachers, all of the package: `decoder` is the model's own, in place;
`plain` the decoder of the weights for plain images; `fusion` the owner's answer of the shipped
model that reads distances from grey; `colours` that of the one that reads true colours."""


class InPlace(nn.Module):
    """(B, 3, H, W) plain images -> scores of their pixels in place.

    The owner's answer on their ciphertexts; without the head, the decoder's alone.
    """

    def __init__(self, model: SETR, *, with_head: bool) -> None:
        super().__init__()
        self.model, self.with_head = model, with_head

    def forward(self, images: Tensor) -> Logits:
        found: Logits = self.model(images)
        if found.decoder is None:
            return found
        if not self.with_head:
            return Logits(found.decoder, ())
        return Logits(in_place(found.main, found.decoder, self.model.patch_size), ())


class Student:
    """A pixel head in training, as `pretrain --pixel-head` trains it: the rest is frozen."""

    def __init__(self, head: PixelHead, recipe: Recipe, training: TrainingConfig) -> None:
        self.head, self.recipe, self.training = head.train(), recipe, training
        rates: dict[float, list[nn.Parameter]] = {}
        for parameter in head.parameters():
            decay = training.weight_decay if parameter.ndim > 1 else 0.0
            rates.setdefault(decay, []).append(parameter)
        groups = [{"params": given, "weight_decay": decay} for decay, given in rates.items()]
        self.optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)
        self.seconds = 0.0

    def step(self, rate: float, given: "Given", soft: Tensor | None) -> None:
        start = time.process_time()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        scores = given.alike + self.head(given.images, given.tokens)
        loss = torch.zeros(())
        if self.recipe.mix < 1:
            lost = pixel_loss(scores, given.labels, self.training, in_any_order=True)
            loss = (1 - self.recipe.mix) * lost
        if soft is not None:
            lost = distillation_loss(scores, soft, given.labels, self.recipe.temperature)
            loss = loss + self.recipe.mix * lost
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.head.parameters(), self.training.gradient_clip)
        self.optimizer.step()
        self.seconds += time.process_time() - start


class Given(NamedTuple):
    """What all heads are given of a batch: it does not depend on them."""

    images: Tensor
    labels: Tensor
    tokens: Tensor
    """(B, D, grid_h, grid_w)."""
    decoder: Tensor
    """(B, CLASSES, h, w)."""
    alike: Tensor
    """(B, CLASSES, H, W), the decoder's mean over each block."""


def distillation_loss(scores: Tensor, soft: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) in nats, the mean over labelled pixels.

    Args:
        scores: (B, C, H, W) of the student.
        soft: (B, C, H, W) of the teacher.
        labels: (B, H, W) trainIds, 255 ignored.
        temperature: T, by which both are divided.
    """
    own = functional.log_softmax(scores / temperature, dim=1)
    theirs = functional.log_softmax(soft / temperature, dim=1)
    lost = functional.kl_div(own, theirs, reduction="none", log_target=True).sum(dim=1)
    is_labelled = labels != IGNORE_INDEX
    return temperature**2 * lost[is_labelled].sum() / is_labelled.sum().clamp(min=1)


def shipped_model(config: Config, form: str | None, *, pixel_head: bool) -> SETR:
    """A model of the package, frozen."""
    settings = {"invariant": form, "pixel_head": pixel_head, "weights": None}
    drawn = config.model.model_copy(update=settings)
    model = build_setr(drawn, CLASSES, config.data.image_size, seed=config.data.scene_seed)
    load_weights(model, shipped_weights(form, pixel_head=pixel_head))
    return model.eval().requires_grad_(False)


def teachers(config: Config) -> dict[str, nn.Module]:
    """Teachers by name, but for the student's own decoder."""
    plain = shipped_model(config, None, pixel_head=False)
    read = {"fusion": FORM, "colours": "pixels"}
    models = {name: shipped_model(config, form, pixel_head=True) for name, form in read.items()}
    return {
        name: InPlace(model, with_head=True) for name, model in {"plain": plain, **models}.items()
    }


def start_model(config: Config) -> SETR:
    """The shipped weights without a pixel head, and one that was drawn from the seed."""
    drawn = config.model.model_copy(update={"invariant": FORM, "pixel_head": True, "weights": None})
    model = build_setr(drawn, CLASSES, config.data.image_size, seed=config.data.scene_seed)
    load_weights(model, shipped_weights(FORM))
    return model.requires_grad_(False)


@torch.no_grad()
def given_of(model: SETR, pixels: Tensor, labels: Tensor) -> Given:
    """The model's own part, as in its `forward`."""
    images = to_input(pixels)
    levels = zip(model.norms, model.features(images), strict=True)
    own = tuple(norm(level) for norm, level in levels)
    decoder = model.decoder(model.neck(own))
    size = (images.shape[-2], images.shape[-1])
    return Given(images, labels, own[-1], decoder, flattened(decoder, model.patch_size, size))


def train(config: Config, shard: Shard, names: list[str], quiet: bool) -> dict[str, SETR]:
    """Train a head for each name on the same batches; says what each took of processor time."""
    model, training = start_model(config), config.training
    if not isinstance(model.pixel_head, PixelHead):
        raise TypeError("expected a model with a pixel head")
    head = model.pixel_head.requires_grad_(True)
    students = {n: Student(copy.deepcopy(head), HEADS[n], training) for n in names}
    wanted = {recipe.teacher for n in names if (recipe := HEADS[n]).teacher is not None}
    known = {name: teacher for name, teacher in teachers(config).items() if name in wanted}
    seed = seed_of(config.data.scene_seed, 1, [part.manifest.client for part in shard.parts])
    steps = steps_of(shard, training, np.random.Generator(np.random.Philox(seed)))
    with progress_of(sys.stderr, quiet) as progress:
        for step, batch in enumerate(batches(shard, steps, torch.device("cpu"))):
            given = given_of(model, batch[0], batch[1])
            size = (given.images.shape[-2], given.images.shape[-1])
            with torch.no_grad():
                seen = {name: each(given.images).main for name, each in known.items()}
            soft = {name: resized(scores, size) for name, scores in seen.items()}
            soft["decoder"] = resized(given.decoder, size)
            rate = training.learning_rate * poly(step / len(steps), training.poly_power)
            for student in students.values():
                student.step(rate, given, soft.get(student.recipe.teacher or ""))
            progress.update("training", step + 1, len(steps))
    taken = (f"{name} {student.seconds:.0f}" for name, student in students.items())
    print("seconds of a core:", *taken, sep=" | ", flush=True)
    trained = {}
    for name, student in students.items():
        trained[name] = copy.deepcopy(model)
        trained[name].pixel_head = student.head
    return trained


def answers(model: nn.Module, shard: Shard) -> Answers:
    """Confusion counts of each held-out image."""
    return np.stack([evaluate(model, [each], CLASSES)[0].numpy() for each in shard.heldout()])


def told(found: Answers, base: Answers | None) -> str:
    """MIoU, and the difference from `base` with its interval over the images."""
    score = float(mean_iou(found.sum(axis=0)))
    if base is None:
        return f"{score:.2f}"
    draws = draws_of([len(found)])["images"]
    gains = resampled(found[None], draws) - resampled(base[None], draws)
    low, high = percentile_interval(gains) or (np.nan, np.nan)
    gain = score - float(mean_iou(base.sum(axis=0)))
    return f"{score:.2f} ({gain:+.2f}, {low:+.2f} to {high:+.2f})"


def compare(config: Config, names: list[str], out: Path, scratch: Path, quiet: bool) -> None:
    with progress_of(sys.stderr, quiet) as progress:
        shard = open_shard([public_shard(config, scratch, 1, progress)])
    print("answer | a node's | the owner's", flush=True)
    decoder = InPlace(start_model(config), with_head=False)
    for name, each in {"decoder": decoder, **teachers(config)}.items():
        print(f"teacher {name}, in place |", told(answers(each, shard), None), flush=True)
    shipped = shipped_model(config, FORM, pixel_head=True)
    pair = (
        told(answers(each, shard), None) for each in (shipped, InPlace(shipped, with_head=True))
    )
    print("shipped head", *pair, sep=" | ", flush=True)
    base: list[Answers] = []
    for name, model in train(config, shard, names, quiet).items():
        file = out / f"{name.replace(', ', '_').replace(' ', '-')}.safetensors"
        save_weights(model.state_dict(), file, dtype="fp16", grid=model.grid, form=FORM)
        load_weights(model, file)
        own = [answers(each, shard) for each in (model, InPlace(model, with_head=True))]
        befores: list[Answers | None] = [*base] or [None, None]
        pairs = zip(own, befores, strict=True)
        print(name, *(told(each, before) for each, before in pairs), sep=" | ", flush=True)
        base = base or own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num-scenes", type=int, default=SHIPPED_SETTINGS["data.num_train"])
    parser.add_argument("--epochs", type=int, default=HEAD_EPOCHS)
    parser.add_argument("--seed", type=int, default=SHIPPED_SETTINGS["data.scene_seed"])
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS), metavar="HEAD")
    parser.add_argument("--out", type=Path, help="keep the weights with each head there")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    overrides = {
        "data.num_train": options.num_scenes,
        "data.scene_seed": options.seed,
        "training.local_epochs": options.epochs,
    }
    config = load_config(None, [], overrides, SHIPPED_SETTINGS)
    print(f"commit {commit()}, seed {options.seed}, {options.num_scenes} scenes,", end=" ")
    print(f"{options.epochs} epochs", flush=True)
    plain = "labels alone"
    names = [plain, *(name for name in options.heads if name != plain)]
    with tempfile.TemporaryDirectory() as place:
        out = options.out or Path(place) / "heads"
        out.mkdir(parents=True, exist_ok=True)
        compare(config, names, out, Path(place), options.quiet)


if __name__ == "__main__":
    main()
