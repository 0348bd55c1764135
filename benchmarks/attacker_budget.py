"""What a larger budget of the attacker restores: images and steps of the survivor network.

    python benchmarks/attacker_budget.py [--cipher NAME] [--images N ...] [--steps N ...]
        [--beyond N S] [--targets N] [--seeds N ...] [--trials FILE] [TREE]

Networks of the audit are trained on public images and restore targets of other cities (train and
val images of TREE, or drawn scenes), from what survives the cipher. Per trial: SSIM, and the mIoU
of the package's segmenter on what was restored. Then a markdown table, and a curve fitted to it,

    score(n, s) = a - b n^-p - c s^-q        n public images, s steps; b, c >= 0

where a is at most 1 of SSIM, and at most the mIoU on the images themselves, with its largest
residual and, fitted again without the trial of the largest budget, the error at that trial. Of one
budget outside the grid, `--beyond`, it says what the curve of the grid expects and what was
measured. Numbers beyond the trials are those of this curve, not measured.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import torch
from scipy.optimize import lsq_linear  # type: ignore[import-untyped]

from fl_ppseg.audit.attacks.reader import BATCH, STEPS, Budget
from fl_ppseg.audit.attacks.survivor_network import nothing, survivor_network
from fl_ppseg.audit.segmenter import Segmenter, shipped_segmenter
from fl_ppseg.crypto.ciphers.invariance import surviving_form
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.views import fit
from fl_ppseg.federation.provenance import commit
from fl_ppseg.leaks.scores import Images, score_images
from fl_ppseg.pretrain import PUBLIC_CITIES, TEST_CITIES
from fl_ppseg.scenes.tree import synthesize

BLOCK: Final = 8
SIZE: Final = (64, 128)
POWERS: Final = np.linspace(0.05, 2, 40)
BEYOND: Final = 10
"""How many times the largest budget the curve is read at."""


@dataclass(frozen=True)
class Trial:
    """One training."""

    cipher: str
    images: int
    steps: int
    seed: int
    ssim: float
    miou: float
    seconds: float
    """Of the processor."""


@dataclass(frozen=True)
class Curve:
    """score(n, s) = a - b n^-p - c s^-q."""

    a: float
    b: float
    c: float
    p: float
    q: float

    def at(self, images: float, steps: float) -> float:
        return float(self.a - self.b * images**-self.p - self.c * steps**-self.q)


def fitted(budgets: Sequence[tuple[int, int]], scores: Sequence[float], most: float) -> Curve:
    """The curve of the least squared error: powers by a grid, the rest by bounded least squares.

    Args:
        budgets: Images and steps of each trial.
        scores: Of each trial.
        most: What no score can exceed.
    """
    n, s = np.array(budgets, float).T
    bounds = ([-np.inf, 0, 0], [most, np.inf, np.inf])
    best: tuple[float, Curve] = (np.inf, Curve(0, 0, 0, 0, 0))
    for p, q in product(POWERS, POWERS):
        columns = np.stack([n**0, -(n**-p), -(s**-q)], axis=1)
        found = lsq_linear(columns, np.array(scores), bounds, method="bvls")
        a, b, c = map(float, found.x)
        curve = Curve(a, b, c, float(p), float(q))
        best = min(best, (float(found.cost), curve), key=lambda pair: pair[0])
    return best[1]


def read(root: Path, split: str, classes: str, number: int) -> tuple[Images, Images]:
    """(n, 3, H, W) images, evenly spaced over a split, and (n, H, W) label maps."""
    cities = open_dataset(root, load_class_table(classes), (split,)).split(split)
    scenes = [scene for city in cities.values() for scene in city]
    chosen = np.linspace(0, len(scenes) - 1, min(number, len(scenes))).astype(int)
    pairs = []
    for scene in (scenes[k] for k in chosen):
        image, labels = scene.load()
        pairs.append(fit(image, labels, SIZE, "resize"))
    return np.stack([image for image, _ in pairs]), np.stack([labels for _, labels in pairs])


def spread(images: Images, number: int) -> Images:
    chosen: Images = images[np.linspace(0, len(images) - 1, number).astype(int)]
    return chosen


def trials(
    options: argparse.Namespace, public: Images, targets: Images, labels: Images, judge: Segmenter
) -> Iterator[Trial]:
    """Trials in rising order of their cost; those of the file are not run again."""
    form = surviving_form(options.cipher)
    if form is None:
        raise SystemExit(f"{options.cipher} leaves no form that a network could read")
    done = known(options.trials)
    budgets = sorted(product(options.seeds[:1], options.images, options.steps), key=lambda b: b[2])
    budgets += [(seed, *options.again) for seed in options.seeds[1:]]
    budgets += [(options.seeds[0], *options.beyond)] if options.beyond else []
    for seed, num, steps in budgets:
        found = next((t for t in done if (t.seed, t.images, t.steps) == (seed, num, steps)), None)
        if found is not None and found.cipher == options.cipher:
            yield found
            continue
        began = time.process_time()
        guess = survivor_network(
            *(spread(public, num), targets, form),
            block_size=BLOCK,
            budget=Budget(steps, seed, from_scratch=True),
        )
        spent = time.process_time() - began
        ssim = score_images(targets, guess, BLOCK).ssim
        trial = Trial(
            options.cipher, num, steps, seed, ssim, judge.miou(guess, labels), round(spent, 1)
        )
        print(trial, flush=True)
        if options.trials is not None:
            with options.trials.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(trial)) + "\n")
        yield trial


def known(path: Path | None) -> list[Trial]:
    if path is None or not path.exists():
        return []
    return [Trial(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def table(found: Sequence[Trial]) -> Iterator[str]:
    """Markdown: a row per number of images, a column per number of steps; SSIM and mIoU."""
    steps = sorted({trial.steps for trial in found})
    scores = {(t.images, t.steps): f"{t.ssim:.3f}, {t.miou:.1f}" for t in found}
    yield f"| public images | {' | '.join(f'{each} steps' for each in steps)} |"
    yield "|---" * (len(steps) + 1) + "|"
    for num in sorted({trial.images for trial in found}):
        yield f"| {num} | {' | '.join(scores.get((num, each), 'not run') for each in steps)} |"


def extrapolated(
    found: Sequence[Trial], name: str, most: float, beyond: Trial | None = None
) -> Iterator[str]:
    """The curve of a score, its errors, and what it says of larger budgets."""
    budgets = [(trial.images, trial.steps) for trial in found]
    scores = [getattr(trial, name) for trial in found]
    curve = fitted(budgets, scores, most)
    residual = max(abs(curve.at(*b) - v) for b, v in zip(budgets, scores, strict=True))
    last = max(range(len(found)), key=lambda k: (budgets[k][0] * budgets[k][1], k))
    rest = [k for k in range(len(found)) if k != last]
    without = fitted([budgets[k] for k in rest], [scores[k] for k in rest], most)
    guess = without.at(*budgets[last])
    yield (
        f"{name}(n, s) = {curve.a:.3f} - {curve.b:.3f} n^-{curve.p:.2f} "
        f"- {curve.c:.3f} s^-{curve.q:.2f}; largest residual {residual:.3f}"
    )
    yield (
        f"without n, s = {budgets[last]}: {guess:.3f} there, measured {scores[last]:.3f}, "
        f"error {guess - scores[last]:+.3f}"
    )
    if beyond is not None:
        expected, measured = curve.at(beyond.images, beyond.steps), getattr(beyond, name)
        yield (
            f"expected of n, s = {(beyond.images, beyond.steps)}: {expected:.3f}, measured "
            f"{measured:.3f}, error {expected - measured:+.3f}"
        )
    images, steps = (BEYOND * max(each) for each in zip(*budgets, strict=True))
    yield (
        f"extrapolated, not measured: {curve.at(images, steps):.3f} for {images} images and "
        f"{steps} steps ({without.at(images, steps):.3f} by the curve without the last); "
        f"limit {curve.a:.3f} ({without.a:.3f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("tree", nargs="?", type=Path)
    add("--classes", default="cityscapes")
    add("--cipher", default="shuffle-spatial+negative-positive")
    add("--images", type=int, nargs="+", default=[100, 400, 1600, 4000])
    add("--steps", type=int, nargs="+", default=[150, 600, 2400])
    add("--targets", type=int, default=60)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="the first for all trials")
    add("--again", type=int, nargs=2, default=[400, 600], help="budget of the other seeds")
    add("--beyond", type=int, nargs=2, metavar="N", help="one budget more, to check the curve")
    add("--trials", type=Path, help="file of trials: those in it are not run again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    judge = shipped_segmenter(load_class_table(options.classes), SIZE)
    if judge is None:
        parser.error("the package has no segmenter of these classes")
    with tempfile.TemporaryDirectory() as scratch:
        root = options.tree or Path(scratch) / "scenes"
        if options.tree is None:
            cities = (PUBLIC_CITIES, TEST_CITIES)
            synthesize(root, num_train=max(options.images), num_val=options.targets, cities=cities)
        public, _ = read(root, "train", options.classes, max(options.images))
        targets, labels = read(root, "val", options.classes, options.targets)
    if len(public) < max(options.images):
        parser.error(f"the tree has {len(public)} train images; give --images of at most that many")
    num = min(400, len(public))
    blind = nothing(spread(public, num), block_size=BLOCK).repeat(len(targets), axis=0)
    ssim, miou = score_images(targets, blind, BLOCK).ssim, judge.miou(blind, labels)
    print(
        f"commit {commit()}; {options.cipher}; {len(targets)} targets of {SIZE[0]}x{SIZE[1]}, "
        f"blocks of {BLOCK}, batches of {BATCH}\n"
        f"blind guess ({num} images, {STEPS} steps): SSIM {ssim:.3f}, mIoU {miou:.1f}; "
        f"images themselves: mIoU {judge.miou(targets, labels):.1f}",
        flush=True,
    )
    found = list(trials(options, public, targets, labels, judge))
    own = [trial for trial in found if trial.seed == options.seeds[0]]
    grid = [t for t in own if t.images in options.images and t.steps in options.steps]
    beyond = next((t for t in own if [t.images, t.steps] == options.beyond), None)
    print("\n".join(table(grid)))
    for name, most in (("ssim", 1.0), ("miou", judge.miou(targets, labels))):
        print("\n".join(extrapolated(grid, name, most, beyond)))
    again = [t for t in found if [t.images, t.steps] == options.again]
    for name in ("ssim", "miou"):
        scores = [getattr(trial, name) for trial in again]
        print(f"{name} of {options.again}, seeds {[t.seed for t in again]}: {np.round(scores, 3)}")
    print(f"{sum(trial.seconds for trial in found):.0f} s of one core for the trainings")


if __name__ == "__main__":
    main()
