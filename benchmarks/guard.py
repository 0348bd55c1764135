"""What an imprinting coordinator sees of training images, by what the node compares weights with.

    python benchmarks/guard.py [--small] [--rounds N ...] [--noise]

The coordinator of `plain` sends weights made to show images (`fl_ppseg.audit.attacks.imprinting`)
to one client of 16 procedural scenes, through the real ClientApp, in its last rounds of ten.
`nothing`: the node compares no weights. `region`: it compares them with the start alone, and is
sent the nearest that it accepts. `change`: it compares them with those before too. `smaller`: the
design with lengths of 1 in place of 100,000, which projecting distorts less. `share` is the share
of images whose likest guess has an SSIM above 0.6, `ssim` the mean over images of the likest guess,
beside that of the mean public image. With --noise instead: four rounds of the design on a node that
compares nothing and adds noise of its own.

--small: images of 32x64 and a model of width 32; else the default config.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import torch

from clients import handlers
from clients.accepted_weights import accepted_folder
from fl_ppseg.audit.attacks import imprinting
from fl_ppseg.audit.attacks.imprint import imprint
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.labels import arrays_of, moved_in
from fl_ppseg.audit.update import Client
from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Scene, open_dataset
from fl_ppseg.data.views import fit
from fl_ppseg.experiment.initial_weights import initial_models
from fl_ppseg.leaks.scores import Images, score_images
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.setr.model import SETR
from fl_ppseg.system.arrays import Arrays

NUM_IMAGES, NUM_PUBLIC, BLOCK, SEEN = 16, 100, 8, 0.6
BUDGETS: Final = (1, 2, 5, 10)
DEVIATIONS: Final = (0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
NUM_CLIENTS: Final = (18, 100, 1000)
SMALL: Final[dict[str, Any]] = {
    "data": {"image_size": [32, 64]},
    "model": {
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "decoder": "naive",
        "decoder_channels": 16,
        "weights": None,
    },
}


def attacked(owner: Client, network: SETR, public: Images, num_rounds: int) -> list[Exchange]:
    """The exchanges of the last rounds, with the nearest weights that the node accepts."""
    last, found = 10, list[Exchange]()
    for round in range(last - num_rounds + 1, last + 1):
        made = moved_in(imprinting.imprinted(network, public, found), owner, round - 1)
        answer = owner.trained(made, round)
        if isinstance(answer, str):
            print(f"  round {round}: {answer}", flush=True)
            continue
        found.append(answer)
    return found


def seen(found: Sequence[Exchange], public: Images, truth: Images) -> tuple[int, float, float]:
    """Guesses, share of the images that are seen, and mean SSIM with the likest guess."""
    guesses = imprint(found, public)
    if guesses is None:
        return 0, 0.0, float("nan")
    best = [max(score_images(t[None], g[None], BLOCK).ssim for g in guesses) for t in truth]
    return len(guesses), float(np.mean(np.array(best) > SEEN)), float(np.mean(best))


class RegionAlone(Client):
    """A client of a node that keeps no accepted weights."""

    def accepted_before(self, num_rounds: int) -> tuple[int, Arrays] | None:
        return None


def lines(
    scenes: Sequence[Scene], public: Images, config: Config, budgets: Sequence[int]
) -> Iterator[str]:
    (network,) = initial_models(config, scenes[0].classes.num_classes).values()
    weights = arrays_of(network)
    mean = public.mean(axis=0, keepdims=True).round().astype(np.uint8)
    content, of_all = imprinting.content_channels(network, public), accepted_folder
    for guard in ("nothing", "region", "change", "region, smaller", "change, smaller"):
        scale = 1e-5 if guard.endswith("smaller") else 1.0
        start = None if guard == "nothing" else weights
        is_alone = guard.startswith("region")
        for budget in budgets:
            begun = time.process_time()
            with (
                mock.patch.object(handlers, "accepted_folder", _no_folder if is_alone else of_all),
                mock.patch.object(imprinting, "_LENGTH", 1e5 * scale),
                mock.patch.object(imprinting, "_LOUD", 1e5 * scale),
                tempfile.TemporaryDirectory() as place,
            ):
                kind = RegionAlone if is_alone else Client
                owner = kind(config, "plain", weights, scenes, Path(place), start=start)
                found = attacked(owner, network, public, budget)
                found = [_readable(exchange, content) for exchange in found]
                number, share, ssim = seen(found, public, owner.truth.plain)
            blank = np.mean([score_images(t[None], mean, BLOCK).ssim for t in owner.truth.plain])
            yield (
                f"{guard:16} {budget:6} {len(found):8} {number:7} {share:6.2f} {ssim:6.3f} "
                f"{blank:6.3f} {time.process_time() - begun:6.1f}"
            )


def noisy(scenes: Sequence[Scene], public: Images, config: Config) -> Iterator[str]:
    """The design on a node that compares nothing, by the deviation of noise on every weight; beside
    it the cosine between the mean of honest updates with and without the noise of n clients."""
    (network,) = initial_models(config, scenes[0].classes.num_classes).values()
    weights, drawn = arrays_of(network), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        owner = Client(config, "plain", weights, scenes, Path(place))
        found, honest = attacked(owner, network, public, 4), owner.answer(weights)
        truth = owner.truth.plain
    update = np.concatenate([(honest.returned[n] - v).ravel() for n, v in weights.items()])
    for deviation in DEVIATIONS:
        hidden = [_noisy(exchange, deviation, drawn) for exchange in found]
        number, share, ssim = seen(hidden, public, truth)
        kept = "".join(
            f"{_cosine(update, deviation / num**0.5, drawn):8.4f}" for num in NUM_CLIENTS
        )
        yield f"{deviation:9.0e} {number:7} {share:6.2f} {ssim:6.3f}{kept}"


def _cosine(update: np.ndarray, deviation: float, drawn: np.random.Generator) -> float:
    """Between an update and itself with noise; that of n clients' mean is less by sqrt(n)."""
    hidden = update + deviation * drawn.normal(size=update.shape)
    return float(update @ hidden / np.linalg.norm(update) / np.linalg.norm(hidden))


def _noisy(exchange: Exchange, deviation: float, drawn: np.random.Generator) -> Exchange:
    returned = {
        name: (value + deviation * drawn.normal(size=value.shape)).astype(value.dtype)
        for name, value in exchange.returned.items()
    }
    return replace(exchange, returned=returned)


def _readable(exchange: Exchange, content: np.ndarray) -> Exchange:
    """The exchange as if no neuron had read content at first, as `imprint` expects it."""
    sent, returned = dict(exchange.sent), dict(exchange.returned)
    for name in sent:
        if name.endswith(".mlp.fc1.weight"):
            laid = sent[name].copy()
            laid[:, content] = 0
            returned[name] = returned[name].astype(np.float64) - sent[name] + laid
            sent[name] = laid
    return replace(exchange, sent=sent, returned=returned)


def _no_folder(*_: object) -> None:
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--noise", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = Config.model_validate({"arms": ["plain"], **(SMALL if options.small else {})})
    with tempfile.TemporaryDirectory() as place:
        synthesize(Path(place), num_train=130, num_val=6, seed=3)
        dataset = open_dataset(Path(place), load_class_table("cityscapes"))
        clients = sorted(dataset.split("train").values(), key=len, reverse=True)
        others = [scene for scenes in clients[1:] for scene in scenes][:NUM_PUBLIC]
        size = config.data.image_size
        public = np.stack([fit(*scene.load(), size, "resize")[0] for scene in others])
        if options.noise:
            columns = "".join(f"{num:8}" for num in NUM_CLIENTS)
            print(f"deviation guesses  share   ssim{columns}", flush=True)
        else:
            print("compared         rounds answered guesses share   ssim   mean      s", flush=True)
        scenes = clients[0][:NUM_IMAGES]
        told = noisy(scenes, public, config)
        for line in told if options.noise else lines(scenes, public, config, options.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
