"""What a coordinator gets of a client's images from single updates, and from sums.

    python benchmarks/summed_updates.py [--arms plain,...] [--rounds 10] [--colluding K ...]

Procedural scenes, the default config, 16 images a client, weights of round 0. `clients`: those in
the sum; of 18, k that work with the coordinator subtract their own and leave 18 - k, and 1 is a
single update. The mean update is exact, but in the rows `rounded` of `plain`: there updates are
rounded as nodes round them. `best case`: each client takes one step of gradient descent on one
image; means over three clients' images. `as trained`: a round as configured. `active`: rounds of
weights made to show images, the same for all clients; with --rounds 0 none.

SSIM of each image of one client with its likest guess, mean over them; `seen` counts those above
0.7. `others` is the same of as many images of that client that nobody trained on: what is right of
any such image by chance. `mean` is the SSIM of the mean public image.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch

from fl_ppseg.audit.attacks.chains import of_survivors, spanned_gradient
from fl_ppseg.audit.attacks.closed_form_gradient import closed_form_gradient
from fl_ppseg.audit.attacks.imprint import imprint
from fl_ppseg.audit.attacks.imprinting import imprinted
from fl_ppseg.audit.attacks.mlp_gradient import mlp_gradient
from fl_ppseg.audit.attacks.neurons import kept
from fl_ppseg.audit.attacks.reader import Budget
from fl_ppseg.audit.attacks.token_span import token_span
from fl_ppseg.audit.cohort import Lots, cohort, companions
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.labels import arrays_of
from fl_ppseg.audit.material import encrypted_apart
from fl_ppseg.audit.rounds import SINGLE
from fl_ppseg.config.loading import builtin_arms, config_for, load_config
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.ciphers.invariance import invariant_form
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Dataset, Scene, open_dataset
from fl_ppseg.data.views import fit
from fl_ppseg.experiment.initial_weights import initial_models
from fl_ppseg.leaks.scores import Images, score_images
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import EMBEDDING_TENSORS

ARMS: Final = ("plain", "per-client-private", "per-image-invariant")
COLLUDING: Final = (0, 6, 12, 16, 17)
NUM_IMAGES, NUM_PUBLIC, NUM_VICTIMS, BLOCK, SEEN = 16, 100, 3, 8, 0.7
SIZE: Final = (64, 128)


class Heard(NamedTuple):
    """One attack on one client: its guesses, and what they are compared with."""

    kind: str
    attack: str
    num_clients: int
    guesses: Images | None
    truth: Images
    others: Images


class World(NamedTuple):
    """What is the same for all attacks of an arm."""

    config: Config
    arm: str
    network: SETR
    lots: Lots
    """Images by client, the one under attack first."""
    others: dict[str, Images]
    """Images of each client that nobody trains on."""
    public: tuple[Images, Images]
    own: Images
    """The public images as the model reads them."""

    def group(self, victim: str, num_clients: int, num_images: int) -> Lots:
        """The clients of a sum, one of them first."""
        names = [victim, *(name for name in self.lots if name != victim)]
        return {name: self.lots[name][:num_images] for name in names[:num_clients]}


def read(scenes: Sequence[Scene]) -> tuple[Images, Images]:
    pairs = [fit(*scene.load(), SIZE, "resize") for scene in scenes]
    images, labels = (np.stack(part) for part in zip(*pairs, strict=True))
    return images, labels


def world(dataset: Dataset, arm: str, num_clients: int) -> World:
    split = dataset.split("train")
    first = max(split, key=lambda name: (len(split[name]), name))
    lots: dict[str, Sequence[Scene]] = {first: list(split[first])[:NUM_IMAGES]}
    lots |= companions(dataset, first, num_clients - 1, NUM_IMAGES)
    further = [s for own in split.values() for s in list(own)[2 * NUM_IMAGES :]]
    public = read([further[k * len(further) // NUM_PUBLIC] for k in range(NUM_PUBLIC)])
    victims = list(lots)[:NUM_VICTIMS]
    others = {name: read(list(split[name])[NUM_IMAGES : 2 * NUM_IMAGES])[0] for name in victims}
    config = load_config(Path("configs/default.yaml")).model_copy(update={"arms": (arm,)})
    protection = builtin_arms()[arm]
    own = public[0]
    if invariant_form(protection.cipher) if protection.cipher else None:
        own = own if protection.embedding == "private" else encrypted_apart(own, protection, BLOCK)
    (network,) = initial_models(config, len(dataset.classes.names)).values()
    return World(config_for(config, protection), arm, network, lots, others, public, own)


def listening(exchange: Exchange, at: World) -> Iterator[tuple[str, Callable[[], Images | None]]]:
    if EMBEDDING_TENSORS[0] in exchange.returned:
        yield "closed-form", partial(closed_form_gradient, exchange)
        return
    yield "token-span", partial(token_span, exchange, at.public[0])
    yield "mlp-gradient", partial(mlp_gradient, exchange, *at.public)
    yield "token-span+mlp-gradient", partial(spanned_gradient, exchange, *at.public)


def heard(at: World, num_clients: int, num_rounds: int, rounded: bool = False) -> Iterator[Heard]:
    weights, config = arrays_of(at.network), at.config
    single = config.model_copy(update={"training": config.training.model_copy(update=SINGLE)})
    first, of_sum = next(iter(at.lots)), num_clients
    for victim in [] if rounded else list(at.others):
        with cohort(single, at.arm, weights, at.group(victim, num_clients, 1)) as owner:
            exchange, truth = owner.answer(weights), owner.truth.plain
        for name, run in listening(exchange, at):
            yield Heard("best case", name, of_sum, run(), truth, at.others[victim])
    lots = at.group(first, num_clients, NUM_IMAGES)
    with cohort(config, at.arm, weights, lots, is_rounded=rounded) as owner:
        truth, others = owner.truth.plain, at.others[first]
        exchange = owner.answer(weights)
        mark = ", rounded" if rounded else ""
        for name, run in listening(exchange, at):
            yield Heard(f"as trained{mark}", name, of_sum, run(), truth, others)
        exchanges: list[Exchange] = []
        last, num_images = config.federation.num_rounds, sum(map(len, lots.values()))
        public = {n: at.network.state_dict()[n].numpy().copy() for n in EMBEDDING_TENSORS}
        for round in range(last - num_rounds + 1, last + 1):  # none: it only listens
            made = imprinted(at.network, at.own, exchanges, num_images)
            found = owner.answer(made, round)
            exchanges.append(kept(replace(found, sent=found.sent | public)))
    if exchanges:
        yield Heard(f"active{mark}", "imprint", of_sum, imprint(exchanges, at.own), truth, others)


def restored(at: World, found: Sequence[Heard], steps: int) -> list[Heard]:
    """Canonical forms that messages show, as a survivor network of the adversary's reads them."""
    protection = builtin_arms()[at.arm]
    form = invariant_form(protection.cipher) if protection.cipher else None
    if form is None or protection.embedding == "private":
        return list(found)
    shows = [partial(lambda images: images, each.guesses) for each in found]
    guesses = of_survivors(
        at.public[0], shows, form, block_size=BLOCK, budget=Budget(steps, from_scratch=True)
    )
    pairs = zip(found, guesses, strict=True)
    return [each._replace(attack=f"{each.attack}+network", guesses=g) for each, g in pairs]


def likeness(truth: Images, guesses: Images) -> list[float]:
    """SSIM of each image with its likest guess."""
    return [max(score_images(x[None], g[None], BLOCK).ssim for g in guesses) for x in truth]


def lines(at: World, found: Sequence[Heard]) -> Iterator[str]:
    mean = at.public[0].mean(axis=0, keepdims=True).round().astype(np.uint8)
    keys = dict.fromkeys((each.kind, each.attack, each.num_clients) for each in found)
    for key in keys:
        same = [each for each in found if each[:3] == key]
        told = [(each, own) for each in same if (own := each.guesses) is not None]
        scores = np.array([s for e, guesses in told for s in likeness(e.truth, guesses)])
        others = np.array([s for e, guesses in told for s in likeness(e.others, guesses)])
        usual = np.array([s for e in same for s in likeness(e.truth, mean)])
        kind, attack, num = key
        words = f"{at.arm:20} {kind:20} {attack:28}{num:3}"
        if not told:
            yield f"{words}  no picture"
            continue
        num_guesses = sum(len(guesses) for _, guesses in told)
        seen = f"{int((scores > SEEN).sum()):3}/{len(scores)}"
        yield (
            f"{words}{num_guesses:5} guesses  ssim {scores.mean():.3f}  seen {seen}  "
            f"others {others.mean():.3f}, {int((others > SEEN).sum())}  mean {usual.mean():.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--clients", type=int, default=18)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--colluding", type=int, nargs="*", default=COLLUDING, metavar="K")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        synthesize(Path(place) / "streets", num_train=600, num_val=6, seed=3)
        dataset = open_dataset(Path(place) / "streets", load_class_table("cityscapes"))
        for arm in options.arms.split(","):
            begun = time.process_time()
            at = world(dataset, arm, options.clients)
            nums = [options.clients - k for k in options.colluding if k < options.clients]
            found = [each for n in nums for each in heard(at, n, options.rounds)]
            if arm == "plain":  # rounding asks for no arm
                found += heard(at, options.clients, options.rounds, rounded=True)
            for line in lines(at, restored(at, found, options.steps)):
                print(line, flush=True)
            print(f"{arm}: {time.process_time() - begun:.0f} CPU seconds", flush=True)


if __name__ == "__main__":
    main()
