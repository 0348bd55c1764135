"""What a message without its embedding shows, by the width of the model and the number of tokens.

    python benchmarks/widths.py

Procedural scenes, `plain-frozen-embedding` (a private embedding gives the same tokens), one step of
SGD as in an audit's best case, models with weights drawn at random, 100 public images of other
cities. Means over three messages; SSIM of the guess with the likest image of its message, `other`
with the likest of another message, `mean` that of the mean public image with its own. A token is a
patch of 8x8 pixels, of ViT-B one of 16x16.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from fl_ppseg.audit.attacks.chains import spanned_gradient
from fl_ppseg.audit.attacks.mlp_gradient import mlp_gradient
from fl_ppseg.audit.attacks.token_span import token_span
from fl_ppseg.audit.rounds import SINGLE
from fl_ppseg.audit.update import overhear
from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Scene, open_dataset
from fl_ppseg.data.views import fit
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.leaks.scores import Images, score_images
from fl_ppseg.scenes.tree import synthesize

VIT_B: Final = {"backbone": "vit_base_patch16_224", "pretrained": False}
ARM, NUM_MESSAGES, NUM_PUBLIC, BLOCK = "plain-frozen-embedding", 3, 100, 8


class Case(NamedTuple):
    name: str
    model: dict[str, Any]
    size: tuple[int, int]
    batch: int = 1
    is_trained_on: bool = True
    """Whether attacks that learn from gradients of the public images are tried: minutes."""


def vit(width: int) -> dict[str, Any]:
    return {"embed_dim": width, "depth": 2, "weights": None}


CASES: Final = (
    *(Case(f"vit, {width} wide", vit(width), (32, 64)) for width in (128, 256, 384, 768)),
    *(Case(f"vit, {width} wide", vit(width), (64, 128)) for width in (128, 256, 384, 768)),
    *(Case("vit, 768 wide", vit(768), (64, 128), batch) for batch in (2, 4)),
    *(Case("ViT-B/16", VIT_B, (224, 224), batch, is_trained_on=False) for batch in (1, 2)),
)


def lines(cities: list[list[Scene]]) -> Iterator[str]:
    classes = cities[0][0].classes
    others = [scene for city in cities[NUM_MESSAGES:] for scene in city][:NUM_PUBLIC]
    head = f"{'model':15}{'image':>10}{'batch':>6}{'tokens':>7}  attack"
    yield f"{head:57}guess  other   mean"
    for case in CASES:
        settings = {"data": {"image_size": case.size}, "training": SINGLE, "model": case.model}
        config = Config.model_validate({"arms": [ARM], **settings})
        training = config.training.model_copy(update={"batch_size": case.batch})
        config = config.model_copy(update={"training": training})
        network = initial_model(config, classes.num_classes, seed=0)
        weights = {name: value.numpy().copy() for name, value in network.state_dict().items()}
        sent = [overhear(config, ARM, weights, c[: case.batch]) for c in cities[:NUM_MESSAGES]]
        pairs = [fit(*scene.load(), case.size, "resize") for scene in others]
        images, labels = (np.stack(part) for part in zip(*pairs, strict=True))
        mean = images.mean(axis=0, keepdims=True).round().astype(np.uint8)
        attacks = {"token-span": [token_span(exchange, images) for exchange, _ in sent]}
        if case.is_trained_on:
            learned = {"mlp-gradient": mlp_gradient, "token-span+mlp-gradient": spanned_gradient}
            for name, attack in learned.items():
                attacks[name] = [attack(exchange, images, labels) for exchange, _ in sent]
        tokens = case.batch * network.grid[0] * network.grid[1]
        height, width = case.size
        for name, guesses in attacks.items():
            told = f"{case.name:15}{f'{height}x{width}':>10}{case.batch:6}{tokens:7}  {name:25}"
            if any(guess is None for guess in guesses):
                yield f"{told}nothing"
                continue
            truths = [truth.plain for _, truth in sent]
            scores = [
                (likest(x, truths[k]), likest(x, truths[k - 1]), likest(mean, truths[k]))
                for k, x in enumerate(guesses)
                if x is not None
            ]
            yield told + "".join(f"{score:7.3f}" for score in np.mean(scores, axis=0))


def likest(guess: Images, truths: Images) -> float:
    return max(score_images(one[None], guess, BLOCK).ssim for one in truths)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "streets"
        synthesize(root, num_train=400, num_val=6, size=(224, 448), seed=3)
        dataset = open_dataset(root, load_class_table("cityscapes"))
        cities = sorted(dataset.split("train").values(), key=len, reverse=True)
        for line in lines([list(city) for city in cities]):
            print(line, flush=True)


if __name__ == "__main__":
    main()
