"""What a coordinator sees of training images with neurons hidden among honest weights.

    python -m benchmarks.hidden_imprint [--arms plain,...] [--last 30 ...] [--images 16 ...]
        [--share 0.5 ...] [--sharpness 4 ...] [--spread 0 ...] [--out 1e-9 ...]
        [--loss-limit 2] [--noise D ...]

As `bounded_imprint`, with weights of `fl_ppseg.audit.attacks.hidden_imprint`, on a node that also
compares losses. `restored` counts the client's blocks (of all its images) that a guess names by
its position and correlates with by at least 0.9; `others` the same with as many images of that
client that nobody trained on. `loss`: over that of the honest weights, on public images. What
statistics of the first MLP would tell a node: `lead`, the share of the largest singular value of
its first matrix; `row`, the longest of its rows, and `column`, the shortest column of its second,
both over the longest and shortest of the honest weights.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.bounded_imprint import ARMS, BLOCK, World, loss, noisy, world
from clients.policy.node_policy import load_policy, save_policy
from fl_ppseg.audit.attacks.hidden_imprint import (
    FIRST,
    Blocks,
    Design,
    hide_neurons,
    leading_share,
    read_hidden,
)
from fl_ppseg.audit.attacks.inputs import read_blocks
from fl_ppseg.audit.labels import arrays_of, moved_in
from fl_ppseg.audit.update import Client
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.leaks.scores import Images
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.system.arrays import Arrays

ALIKE: Final = 0.9


def main() -> None:
    """Print a line of each trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--arms", default=",".join(ARMS[:1]))
    parser.add_argument("--last", type=int, nargs="+", default=(30,))
    parser.add_argument("--images", type=int, nargs="+", default=(16,))
    parser.add_argument("--share", type=float, nargs="+", default=(0.5,))
    parser.add_argument("--sharpness", type=float, nargs="+", default=(4.0,))
    parser.add_argument("--scale", type=float, nargs="+", default=(2.0,))
    parser.add_argument("--above", type=float, nargs="+", default=(1.0,))
    parser.add_argument("--evenness", type=float, nargs="+", default=(0.1,))
    parser.add_argument("--spread", type=float, nargs="+", default=(0.0,))
    parser.add_argument("--out", type=float, nargs="+", default=(1e-9,))
    parser.add_argument("--loss-limit", type=float, default=2.0)
    parser.add_argument("--noise", type=float, nargs="+", default=(0.0,))
    options = parser.parse_args()
    for arm in options.arms.split(","):
        if builtin_arms()[arm].cipher is not None and builtin_arms()[arm].embedding != "private":
            parser.error(f"--arms {arm}: what is read is compared with plain images")
    torch.set_num_threads(1)
    print(
        f"{'arm':20} images last share sharp scale above evenness spread     out"
        "  loss  lead   row  column deviation"
        " guesses restored    best others    best       s"
    )
    with tempfile.TemporaryDirectory() as place:
        synthesize(Path(place) / "streets", num_train=400, num_val=6, seed=3)
        dataset = open_dataset(Path(place) / "streets", load_class_table("cityscapes"))
        for arm, images in product(options.arms.split(","), options.images):
            at = world(dataset, arm, images)
            for last, share, sharpness, scale, above, evenness, out, spread in product(
                options.last,
                options.share,
                options.sharpness,
                options.scale,
                options.above,
                options.evenness,
                options.out,
                options.spread,
            ):
                design = Design(share, sharpness, scale, above, evenness, out, spread)
                trial(at, images, last, design, options.loss_limit, options.noise)


def trial(
    at: World, images: int, last: int, design: Design, limit: float, noise: Sequence[float]
) -> None:
    """Ask one round, and print what its reply shows under each noise."""
    begun, start = time.process_time(), arrays_of(at.network)
    with tempfile.TemporaryDirectory() as place:
        owner = Client(
            *(at.config, at.arm, start, at.scenes, Path(place)), heldout=at.heldout, start=start
        )
        policy = load_policy(owner.policy)
        save_policy(policy.model_copy(update={"max_loss_ratio": limit}), owner.policy)
        within = partial(moved_in, owner=owner, num_rounds=last - 1)
        hidden = hide_neurons(at.network, at.own, within, images, design)
        answer = owner.trained(hidden.weights, last)
    ratio = loss(at, hidden.weights) / loss(at, start)
    words = f"{at.arm:20} {images:6} {last:4} {design.share:5} {design.sharpness:5} "
    words += f"{design.scale:5} {design.above:5} {design.evenness:8} {design.spread:6} "
    words += f"{design.out:7.0e} {ratio:5.2f} {statistics(start, hidden.weights)}"
    if isinstance(answer, str):
        print(f"{words} refused: {answer}", flush=True)
        return
    drawn = np.random.default_rng(0)
    for deviation in noise:
        seen = read_hidden(noisy(answer, deviation, drawn), hidden.neurons, at.own)
        own, best = restored(seen, owner.truth.plain)
        other, likest = restored(seen, at.others)
        seconds = time.process_time() - begun
        print(
            f"{words} {deviation:9.0e} {len(seen.positions):7} {own:8} {best:7.3f} "
            f"{other:6} {likest:7.3f} {seconds:7.1f}",
            flush=True,
        )


def statistics(start: Arrays, weights: Arrays) -> str:
    """What a node could compute of the first MLP, beside its start."""
    first, second = f"{FIRST}fc1.weight", f"{FIRST}fc2.weight"
    (row, column), (longest, shortest) = (
        (np.linalg.norm(w[first], axis=1).max(), np.linalg.norm(w[second], axis=0).min())
        for w in (weights, start)
    )
    lead = leading_share(weights[first])
    return f"{lead:5.3f} {row / longest:5.2f} {column / shortest:7.0e}"


def restored(seen: Blocks, images: Images) -> tuple[int, float]:
    """How many blocks of images a guess restores, and the largest correlation."""
    truth = read_blocks(images, None, BLOCK)
    found, best = set[tuple[int, int]](), 0.0
    for position, guess in zip(seen.positions, seen.values, strict=True):
        alike = [_correlation(guess, blocks[position]) for blocks in truth]
        best = max(best, *alike)
        if max(alike) >= ALIKE:
            found.add((int(np.argmax(alike)), int(position)))
    return len(found), best


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one - one.mean(), other - other.mean()
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))


if __name__ == "__main__":
    main()
