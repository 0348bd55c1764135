"""What one message of the real ClientApp shows its coordinator, by what the client was to do.

    python benchmarks/updates.py [--data-root TREE --classes camvid]

The package's model and weights of round 0, images of 64x128, blocks of 8x8. SGD is a rate of 0.1
and nothing else, as in an audit's best case; AdamW has the default settings. Means over three
clients' messages; 100 images of other clients are public. `guess` is the SSIM (`r`: correlation of
canonical forms) of the guess with the likest image of its message, `other` with the likest of
another client's, and `mean` that of the mean public image with the message's own. CPU seconds of
one core an attack. Keys are new every time, so encrypted rows vary. Not tried: other rates, rounds.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from fl_ppseg.audit.attacks.chains import spanned_gradient
from fl_ppseg.audit.attacks.closed_form_gradient import closed_form_gradient
from fl_ppseg.audit.attacks.gradient_matching import gradient_matching
from fl_ppseg.audit.attacks.mlp_gradient import mlp_gradient
from fl_ppseg.audit.attacks.position_correlation import correlate_positions
from fl_ppseg.audit.attacks.reader import seen_of
from fl_ppseg.audit.attacks.thumbnail import thumbnail
from fl_ppseg.audit.attacks.token_span import token_span
from fl_ppseg.audit.attacks.undoing import Algorithm
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.rounds import SINGLE
from fl_ppseg.audit.update import Truth, overhear
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.ciphers.invariance import invariant_form
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Dataset, Scene, open_dataset
from fl_ppseg.data.views import fit
from fl_ppseg.experiment.initial_weights import initial_models
from fl_ppseg.leaks.scores import Images, score_images
from fl_ppseg.scenes.tree import synthesize

SIZE, BLOCK, NUM_CLIENTS, NUM_PUBLIC = (64, 128), 8, 3, 100
SETTINGS: Final[dict[str, dict[str, Any]]] = {"sgd": SINGLE, "adamw": {}}
SPANS: Final = ("token-span", "mlp-gradient", "token-span+mlp-gradient")
FROZEN, OURS = "plain-frozen-embedding", ("per-image-invariant", "per-image-invariant-shuffle")


class Case(NamedTuple):
    arm: str
    images: int = 1
    batch: int = 1
    epochs: int = 1
    optimizer: str = "sgd"
    attack: str = "closed-form"
    targets: tuple[str, ...] = ("image",)


CASES: Final = (
    *(Case("plain", n, n) for n in (1, 2, 4, 8, 16)),
    *(Case("plain", epochs=k) for k in (2, 4, 8)),
    *(Case("plain", n) for n in (2, 4, 8)),
    *(Case("plain", epochs=k, optimizer="adamw") for k in (1, 2)),
    *(Case("plain", n, 8, optimizer="adamw") for n in (8, 16)),
    Case("per-image", targets=("ciphertext", "image")),
    Case("per-image", attack="closed-form+positions"),
    *(Case(arm, targets=("form (r)", "image")) for arm in OURS),
    *(Case(arm, attack="closed-form+thumbnail") for arm in OURS),
    *(Case(arm, attack=x) for arm in ("per-client-private", FROZEN) for x in SPANS),
    *(Case(FROZEN, n, n, attack=x) for n in (2, 4, 8) for x in SPANS),
    *(Case(FROZEN, n, n, 1, "adamw", x) for n in (1, 8) for x in SPANS),
    Case(FROZEN, attack="gradient-matching"),
    *(Case(arm, 8, 8, 1, "adamw", "closed-form+thumbnail") for arm in OURS),
)


def heard(case: Case, scenes: Sequence[Scene]) -> tuple[Exchange, Truth]:
    """A client's message, and what its images were."""
    own = SETTINGS[case.optimizer] | {"batch_size": case.batch, "local_epochs": case.epochs}
    config = Config.model_validate({"arms": [case.arm], "training": own})
    (model,) = initial_models(config, scenes[0].classes.num_classes).values()
    weights = {name: np.array(value.numpy()) for name, value in model.state_dict().items()}
    return overhear(config, case.arm, weights, scenes[: case.images])


def attacked(
    attack: str, sent: Exchange, own: tuple[Images, Images], form: str | None
) -> Images | None:
    """(1, 3, H, W), what a coordinator with images and label maps of its own makes of a message."""
    match attack:
        case "closed-form+thumbnail":
            seen = closed_form_gradient(sent)
            return None if seen is None else thumbnail(own[0], seen, form, block_size=BLOCK)
        case "closed-form+positions":
            seen, values = closed_form_gradient(sent), Algorithm("values")
            if seen is None:
                return None
            guess = correlate_positions(seen, own[0], block_size=BLOCK, algorithm=values)
            return guess.reconstructed
        case "token-span":
            return token_span(sent, own[0])
        case "mlp-gradient":
            return mlp_gradient(sent, *own)
        case "token-span+mlp-gradient":
            return spanned_gradient(sent, *own)
        case "gradient-matching":
            return gradient_matching(sent, num_restarts=1).images
    return closed_form_gradient(sent)


def likeness(guess: Images, truth: Truth, target: str, form: str | None) -> float:
    """Of a guess and the image that it is most like."""
    if target == "form (r)":
        seen, *others = seen_of(np.concatenate([guess, truth.stored]), form, BLOCK, raw=False)
        return max(float(np.corrcoef(seen.ravel(), other.ravel())[0, 1]) for other in others)
    truths = truth.stored if target == "ciphertext" else truth.plain
    return max(score_images(one[None], guess, BLOCK).ssim for one in truths)


def lines(dataset: Dataset) -> Iterator[str]:
    clients = sorted(dataset.split("train").values(), key=len, reverse=True)
    others = [scene for scenes in clients[NUM_CLIENTS:] for scene in scenes]
    chosen = [others[k * len(others) // NUM_PUBLIC] for k in range(NUM_PUBLIC)]
    pairs = [fit(*scene.load(), SIZE, "resize") for scene in chosen]
    images, labels = zip(*pairs, strict=True)
    public = (np.stack(images), np.stack(labels))
    mean = public[0].mean(axis=0, keepdims=True).round().astype(np.uint8)
    yield f"{'arm':28} images batch steps optimiser {'attack':25}{'of':13}guess  other   mean     s"
    for case in CASES:
        cipher = builtin_arms()[case.arm].cipher
        form = cipher and invariant_form(cipher)
        messages = [heard(case, scenes) for scenes in clients[:NUM_CLIENTS]]
        start = time.process_time()
        guesses = [attacked(case.attack, sent, public, form) for sent, _ in messages]
        seconds = (time.process_time() - start) / NUM_CLIENTS
        rows = [(x, messages[k][1], messages[k - 1][1]) for k, x in enumerate(guesses)]
        for target in case.targets:
            like = partial(likeness, target=target, form=form)
            scores = [
                (like(x, own), like(x, other), like(mean, own))
                for x, own, other in rows
                if x is not None
            ]
            told = "".join(f"{score:7.3f}" for score in np.mean(scores or [(np.nan,) * 3], axis=0))
            steps = f"{case.images:7}{case.batch:6}{messages[0][0].num_steps:6}"
            words = f"{case.optimizer:10}{case.attack:25}{target:11}"
            yield f"{case.arm:28}{steps} {words}{told}{seconds:6.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--classes", default="cityscapes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        root = options.data_root or Path(place) / "streets"
        if options.data_root is None:
            synthesize(root, num_train=400, num_val=6, seed=3)
        for line in lines(open_dataset(root, load_class_table(options.classes))):
            print(line, flush=True)


if __name__ == "__main__":
    main()
