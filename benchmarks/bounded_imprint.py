"""What a coordinator sees of training images with weights that stay within a node's trust region.

    python benchmarks/bounded_imprint.py [--arms plain,...] [--last 30 ...] [--before 0]
        [--images 16] [--regions 16 ...] [--range LOW HIGH] [--faint 0.003]
        [--loss-limit R] [--noise]

The coordinator sends weights of `fl_ppseg.audit.attacks.bounded_imprinting` to one client of the
default config (30 rounds, batches of 4, AdamW), through the real ClientApp, whose node compares
them with those of round 0 and with those that it accepted before. It asks the round `last`, and
every third round of `before` others ahead of it, with the same design as far as the region of each
lets it; only the last is read. `radius`: of the region then, for a weight of 0; `refused` counts
the node's refusals. Controls: `honest`, the same reading of the weights of round 0; `free`, the
design of `imprinting` on a node that compares nothing.

`ssim`: of each image of the client with the likest guess, mean over the images; `best` is the
largest, `seen` counts those above 0.6. `others`: the same guesses with as many images of that
client that nobody trained on. `mean`: of the mean public image. `loss`: of the weights on public
images, beside that of round 0.

--range: of the numbers to tell apart, as if the coordinator knew where the client's images lie.
--faint: the design's smallest weights. --regions: training images that the node's region is
computed for (of the largest client it assumes five times as many); fewer make it narrower. --noise:
the guesses from updates with noise of one deviation on every weight.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch

from clients.policy.node_policy import load_policy, save_policy
from clients.policy.trust_region import change_between
from fl_ppseg.audit.attacks.bounded_imprint import bounded_imprint
from fl_ppseg.audit.attacks.bounded_imprinting import COARSE, FAINT, Range, bounded_imprinted
from fl_ppseg.audit.attacks.imprint import imprint
from fl_ppseg.audit.attacks.imprinting import imprinted
from fl_ppseg.audit.attacks.inputs import load
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.labels import arrays_of, moved_in
from fl_ppseg.audit.material import encrypted_apart
from fl_ppseg.audit.update import Client
from fl_ppseg.config.loading import builtin_arms, config_for, load_config
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.ciphers.invariance import invariant_form
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Dataset, Scene, open_dataset
from fl_ppseg.data.pixels import to_input
from fl_ppseg.data.views import fit
from fl_ppseg.experiment.initial_weights import initial_models
from fl_ppseg.leaks.scores import Images, score_images
from fl_ppseg.learning.losses import pixel_loss
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays

ARMS: Final = ("plain", "per-client-private", "per-image-invariant")
NUM_PUBLIC, BLOCK, SEEN, SIZE = 100, 8, 0.6, (64, 128)
HEADING: Final = (
    "weights  last asked radius refused {}guesses    ssim  best seen    others      mean{}"
)
NUM_HELDOUT: Final = 4
DEVIATIONS: Final = (0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)


class World(NamedTuple):
    """What is the same for all trials of an arm."""

    config: Config
    arm: str
    network: SETR
    scenes: Sequence[Scene]
    others: Images
    """Images of the same client that nobody trains on."""
    heldout: Sequence[Scene]
    """Some of them, held out on the node."""
    public: tuple[Images, Images]
    own: Images
    """The public images as the model reads them."""


def read(scenes: Sequence[Scene]) -> tuple[Images, Images]:
    pairs = [fit(*scene.load(), SIZE, "resize") for scene in scenes]
    images, labels = (np.stack(part) for part in zip(*pairs, strict=True))
    return images, labels


def world(dataset: Dataset, arm: str, num_images: int) -> World:
    clients = sorted(dataset.split("train").values(), key=len, reverse=True)
    elsewhere = [scene for scenes in clients[1:] for scene in scenes]
    public = read([elsewhere[k * len(elsewhere) // NUM_PUBLIC] for k in range(NUM_PUBLIC)])
    config = load_config(Path("configs/default.yaml")).model_copy(update={"arms": (arm,)})
    protection = builtin_arms()[arm]
    own = public[0]
    if protection.embedding == "invariant":
        assert protection.cipher and invariant_form(protection.cipher)
        own = encrypted_apart(own, protection, BLOCK)
    (network,) = initial_models(config, len(dataset.classes.names)).values()
    scenes = list(clients[0])
    others = read(scenes[num_images : 2 * num_images])[0]
    heldout = scenes[num_images : num_images + NUM_HELDOUT]
    return World(
        config_for(config, protection),
        arm,
        network,
        scenes[:num_images],
        others,
        heldout,
        public,
        own,
    )


def asked(
    at: World, kind: str, owner: Client, rounds: Sequence[int], numbers: Range, faint: float
) -> tuple[list[Exchange], int]:
    """The exchange of the last of the rounds, if there was one, and how many the node refused."""
    start, found, num_refused = arrays_of(at.network), list[Exchange](), 0
    public = {name: start[name] for name in EMBEDDING_TENSORS}
    is_kept = builtin_arms()[at.arm].embedding == "private"
    for round in rounds:
        limit = partial(moved_in, owner=owner, num_rounds=round - 1)
        match kind:
            case "bounded":
                made = bounded_imprinted(at.network, at.own, limit, numbers, is_kept, faint)
            case "free":
                made = imprinted(at.network, at.own)
            case _:
                made = start
        answer = owner.trained(made, round)
        if isinstance(answer, str):
            print(f"  round {round}: {answer}", flush=True)
            num_refused += 1
        elif round == rounds[-1]:
            # a private embedding is adapted from the public one and gives the same tokens
            found.append(replace(answer, sent=public | answer.sent))
    return found, num_refused


def likeness(truth: Images, guesses: Images | None) -> tuple[float, float, int]:
    """SSIM of each image with its likest guess, mean and largest, and how many are seen."""
    if guesses is None:
        return float("nan"), float("nan"), 0
    best = [max(score_images(x[None], g[None], BLOCK).ssim for g in guesses) for x in truth]
    return float(np.mean(best)), max(best), int((np.array(best) > SEEN).sum())


def loss(at: World, weights: Arrays) -> float:
    """Of the arm's training, over public images."""
    load(at.network, (kept := arrays_of(at.network)) | weights)
    with torch.no_grad():
        logits = at.network(to_input(torch.from_numpy(at.own)))
        found = pixel_loss(logits.main, torch.from_numpy(at.public[1]), at.config.training)
    load(at.network, kept)
    return float(found)


def guessed(kind: str, found: Sequence[Exchange], at: World) -> Images | None:
    return (imprint if kind == "free" else bounded_imprint)(found, at.own)


def line(at: World, kind: str, found: Sequence[Exchange], truth: Images) -> str:
    guesses = guessed(kind, found, at)
    mean = at.public[0].mean(axis=0, keepdims=True).round().astype(np.uint8)
    ssim, best, seen = likeness(truth, guesses)
    others, _, by_chance = likeness(at.others, guesses)
    number = 0 if guesses is None else len(guesses)
    share = f"{seen:3}/{len(truth):<3}"
    usual, *_ = likeness(truth, mean)
    return f"{number:7}  {ssim:6.3f} {best:5.2f} {share} {others:6.3f} {by_chance:3}  {usual:6.3f}"


def noisy(exchange: Exchange, deviation: float, drawn: np.random.Generator) -> Exchange:
    returned = {
        name: (value + deviation * drawn.normal(size=value.shape)).astype(value.dtype)
        for name, value in exchange.returned.items()
    }
    return replace(exchange, returned=returned)


def lines(at: World, options: argparse.Namespace) -> Iterator[str]:
    start = arrays_of(at.network)
    for kind in ("bounded",) if options.noise else options.kinds:
        for last, largest in product(options.last, options.regions):
            rounds = [last - 3 * k for k in range(options.before, -1, -1) if 3 * k < last]
            begun = time.process_time()
            with tempfile.TemporaryDirectory() as place:
                own = None if kind == "free" else start
                owner = Client(
                    *(at.config, at.arm, start, at.scenes, Path(place)),
                    heldout=at.heldout,
                    start=own,
                    num_trained=largest,
                )
                if options.loss_limit:
                    policy = load_policy(owner.policy)
                    changes = {"max_loss_ratio": options.loss_limit}
                    save_policy(policy.model_copy(update=changes), owner.policy)
                found, num_refused = asked(
                    at, kind, owner, rounds, tuple(options.range), options.faint
                )
                truth, agreed = owner.truth.plain, owner.agreed_policy
            is_bound = agreed.max_change is not None
            region = change_between(agreed, 0, last - 1) if is_bound else np.inf
            words = f"{at.arm:20} {kind:8}{last:5}{len(rounds):6}{region:7.3f}{num_refused:8}"
            if options.noise:
                drawn = np.random.default_rng(0)
                for deviation in DEVIATIONS:
                    hidden = [noisy(each, deviation, drawn) for each in found]
                    yield f"{words} {deviation:9.0e} {line(at, kind, hidden, truth)}"
                continue
            lost = loss(at, found[-1].sent) if found else float("nan")
            told, seconds = line(at, kind, found, truth), time.process_time() - begun
            yield f"{words} {told} {lost:7.2f} {loss(at, start):5.2f} {seconds:6.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--kinds", nargs="+", default=("bounded", "honest", "free"))
    parser.add_argument("--last", type=int, nargs="+", default=(30,))
    parser.add_argument("--before", type=int, default=0)
    parser.add_argument("--range", type=float, nargs=2, default=COARSE)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--regions", type=int, nargs="+", default=(None,), metavar="IMAGES")
    parser.add_argument("--faint", type=float, default=FAINT)
    parser.add_argument("--loss-limit", type=float, metavar="R", help="max_loss_ratio of the node")
    parser.add_argument("--noise", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    columns = ("deviation ", "") if options.noise else ("", "   loss  at 0      s")
    print(f"{'arm':20} {HEADING.format(*columns)}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        synthesize(Path(place) / "streets", num_train=400, num_val=6, seed=3)
        dataset = open_dataset(Path(place) / "streets", load_class_table("cityscapes"))
        for arm in options.arms.split(","):
            for told in lines(world(dataset, arm, options.images), options):
                print(told, flush=True)


if __name__ == "__main__":
    main()
