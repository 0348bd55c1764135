"""Weights made to show images within a trust region: what a node that compares them still shows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import small_federation as small

from fl_ppseg.audit.attacks.bounded_imprint import bounded_imprint
from fl_ppseg.audit.attacks.bounded_imprinting import applies_to, bounded_imprinted, codes
from fl_ppseg.audit.attacks.imprinting import imprinted
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.labels import moved_in
from fl_ppseg.audit.update import Client, client
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.views import fit
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.leaks.scores import score_images
from fl_ppseg.setr.model import SETR

SIZE = (32, 64)
NUM_ROUNDS = 30
PUP = {"embed_dim": 128, "depth": 2, "decoder": "pup", "num_convs": 2}


@pytest.fixture(scope="module")
def public(cities: dict[str, tuple[Scene, ...]]) -> np.ndarray:
    """Images of the coordinator's own; the client is aachen."""
    others = [scene for city, part in cities.items() if city != "aachen" for scene in part]
    return np.stack([fit(*scene.load(), SIZE, "resize")[0] for scene in others])


@contextmanager
def guarded(scenes: Sequence[Scene]) -> Iterator[tuple[Client, SETR]]:
    """A client whose node compares weights, in a region that long steps of the server make wide,
    and the model with the weights of round 0."""
    settings = small.config(
        None,
        arms=["plain"],
        data={"image_size": SIZE},
        model=PUP,
        training={"learning_rate": 2e-3, "batch_size": 2},
        federation={"num_rounds": NUM_ROUNDS, "server_learning_rate": 2.7},
    )
    network = initial_model(settings, small.NUM_CLASSES, seed=0)
    start = small.arrays_of(network)
    with client(settings, "plain", start, scenes, start=start) as owner:
        yield owner, network


def asked(owner: Client, network: SETR, public: np.ndarray, round: int) -> Exchange:
    limit = partial(moved_in, owner=owner, num_rounds=round - 1)
    return owner.answer(bounded_imprinted(network, public, limit), round)


def likeness(truth: np.ndarray, guesses: np.ndarray | None) -> np.ndarray:
    """SSIM of each image's likest guess; 0 if there is none."""
    if guesses is None:
        return np.zeros(len(truth))
    pairs = ([score_images(i[None], g[None], 8).ssim for g in guesses] for i in truth)
    return np.array([max(scores) for scores in pairs])


def test_late_rounds_show_images_to_a_node_that_compares_weights(
    cities: dict[str, tuple[Scene, ...]], public: np.ndarray
) -> None:
    usual = public.mean(axis=0, keepdims=True).astype(np.uint8)
    with guarded(cities["aachen"][:2]) as (owner, network):
        assert applies_to(network)
        assert isinstance(owner.trained(imprinted(network, public), NUM_ROUNDS), str)  # refused
        asked(owner, network, public, NUM_ROUNDS - 1)  # what comes after is compared with it
        found = [asked(owner, network, public, NUM_ROUNDS)]
        truth = owner.truth.plain
    shown = likeness(truth, bounded_imprint(found, public))
    assert shown.min() > 0.6 > 0.4 > likeness(truth, usual).max()
    drawn = np.random.default_rng(0)
    for exchange in found:
        for name, value in exchange.returned.items():
            noise = drawn.normal(size=value.shape).astype(np.float32) * 1e-2
            exchange.returned[name] = value + noise
    shown = likeness(truth, bounded_imprint(found, public))
    assert shown.max() < likeness(truth, usual).max()


def test_an_early_round_shows_nothing(
    cities: dict[str, tuple[Scene, ...]], public: np.ndarray
) -> None:
    usual = public.mean(axis=0, keepdims=True).astype(np.uint8)
    with guarded(cities["aachen"][:2]) as (owner, network):
        found, truth = [asked(owner, network, public, 2)], owner.truth.plain
    assert likeness(truth, bounded_imprint(found, public)).max() < likeness(truth, usual).max()


def test_codes_differ_in_many_places() -> None:
    chosen, most = codes(128)
    products = chosen @ chosen.T - 32 * np.eye(128)
    assert not chosen.sum(axis=1).any() and products.max() == most <= 8


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        (PUP, True),
        (PUP | {"embed_dim": 64}, False),
        (PUP | {"num_auxiliary": 1, "depth": 4}, False),
        (PUP | {"norm": "batch"}, False),
        (PUP | {"decoder": "naive", "num_convs": None}, False),
    ],
)
def test_models_of_another_form_are_told_apart(model: dict[str, Any], fits: bool) -> None:
    assert applies_to(small.model(**model)) == fits
