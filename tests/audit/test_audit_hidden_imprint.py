"""Neurons hidden among honest weights: what they cost the model, and which blocks they show."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import small_federation as small
import torch
from test_audit_bounded_imprint import guarded, public  # noqa: F401  # a fixture

from fl_ppseg.audit.attacks.hidden_imprint import (
    FIRST,
    Design,
    Hidden,
    hide_neurons,
    leading_share,
    read_hidden,
)
from fl_ppseg.audit.attacks.inputs import first_layer, load, read_blocks
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.labels import moved_in
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.pixels import to_input
from fl_ppseg.setr.model import SETR
from fl_ppseg.system.arrays import Arrays

ROUND, STEP = 30, 1e-4
DESIGN = Design(sharpness=8.0, scale=1.2, above=0.5, evenness=0.01, out=1e-3)
free: Callable[[Arrays], Arrays] = dict
Shown = tuple[Exchange, Hidden, np.ndarray, SETR]


@pytest.fixture(scope="module")
def shown(public: np.ndarray, cities: dict[str, tuple[Scene, ...]]) -> Shown:  # noqa: F811
    """The exchange with a client of one image, the weights, its image, and the honest model."""
    with guarded(cities["aachen"][:1]) as (owner, network):
        limit = partial(moved_in, owner=owner, num_rounds=ROUND - 1)
        hidden = hide_neurons(network, public, limit, 1, DESIGN)
        return owner.answer(hidden.weights, ROUND), hidden, owner.truth.plain, network


def seen_by(hidden: Hidden, network: SETR, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, N, D) tokens under the made weights, and (n, N, K) what its neurons see of them."""
    made = deepcopy(network)
    load(made, hidden.weights)
    tokens = first_layer(made, images, "mlp")
    rows = hidden.weights[f"{FIRST}fc1.weight"][hidden.neurons]
    return tokens, tokens @ rows.T + hidden.weights[f"{FIRST}fc1.bias"][hidden.neurons]


def test_a_node_trains_them_and_they_move_by_the_signs_of_a_token(shown: Shown) -> None:
    """Of neurons that a single token makes fire, weights move as that token's signs."""
    exchange, hidden, truth, network = shown
    tokens, seen = seen_by(hidden, network, truth)
    fired = seen[0] > -3.0  # beyond that GELU has no slope
    alone = np.flatnonzero(fired.sum(axis=0) == 1)
    assert len(alone) > 3
    rows, biases = (
        exchange.returned[name].astype(np.float64) - exchange.sent[name]
        for name in (f"{FIRST}fc1.weight", f"{FIRST}fc1.bias")
    )
    agree = []
    for number in alone:
        own = hidden.neurons[number]
        token = tokens[0, fired[:, number].argmax()]
        agree.append(np.mean(np.sign(rows[own]) * np.sign(biases[own]) == np.sign(token)))
    assert np.median(agree) > 0.9


def test_signs_of_a_token_are_read_as_its_block(shown: Shown, public: np.ndarray) -> None:  # noqa: F811
    """In an exchange in which each neuron moved by the signs of one token."""
    exchange, hidden, _, network = shown
    tokens, _ = seen_by(hidden, network, public)
    returned = {name: value.copy() for name, value in exchange.sent.items()}
    chosen = [(number % len(public), (5 * number) % tokens.shape[1]) for number in range(20)]
    for neuron, (image, position) in zip(hidden.neurons, chosen, strict=False):
        returned[f"{FIRST}fc1.weight"][neuron] -= STEP * np.sign(tokens[image, position])
        returned[f"{FIRST}fc1.bias"][neuron] -= STEP
    read = read_hidden(replace(exchange, returned=returned), hidden.neurons, public)
    assert len(read.positions) == len(chosen)
    assert np.mean(read.positions == [position for _, position in chosen]) > 0.9
    truth = read_blocks(public, None, network.patch_size)
    alike = [
        np.corrcoef(guess, truth[own])[0, 1] for guess, own in zip(read.values, chosen, strict=True)
    ]
    assert np.median(alike) > 0.8
    drawn = np.random.default_rng(0)
    noisy = {
        name: value + (10 * STEP * drawn.normal(size=value.shape)).astype(np.float32)
        for name, value in returned.items()
    }
    hidden_now = read_hidden(replace(exchange, returned=noisy), hidden.neurons, public)
    lost = [
        np.corrcoef(guess, truth[own])[0, 1]
        for guess, own in zip(hidden_now.values, chosen, strict=False)
    ]
    assert np.median(lost) < 0.4


def test_weights_that_did_not_move_show_nothing(shown: Shown, public: np.ndarray) -> None:  # noqa: F811
    exchange, hidden, _, _ = shown
    still = replace(exchange, returned=exchange.sent)
    assert len(read_hidden(still, hidden.neurons, public).positions) == 0


def test_a_neuron_fires_for_few_public_tokens(shown: Shown, public: np.ndarray) -> None:  # noqa: F811
    _, _, _, network = shown
    for above in (1.0, 4.0):
        hidden = hide_neurons(network, public, free, 1, replace(DESIGN, above=above))
        _, seen = seen_by(hidden, network, public)
        fires = (seen > 0).mean(axis=(0, 1)) * seen.shape[1]  # tokens of one image
        assert 0.3 * above < np.median(fires) < 2 * above


def test_rows_that_are_spread_read_the_same_and_look_less_alike(
    shown: Shown,
    public: np.ndarray,  # noqa: F811
) -> None:
    _, _, _, network = shown
    share, fires = {}, {}
    for spread in (0.0, 4.0):
        hidden = hide_neurons(network, public, free, 1, replace(DESIGN, spread=spread))
        _, seen = seen_by(hidden, network, public)
        share[spread] = leading_share(hidden.weights[f"{FIRST}fc1.weight"][hidden.neurons])
        fires[spread] = (seen > 0).mean(axis=(0, 1))
    assert share[4.0] < 0.5 * share[0.0]
    assert 0.3 < np.median(fires[4.0]) / np.median(fires[0.0]) < 3


def test_the_leading_share_is_that_of_parallel_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    assert leading_share(np.outer([1.0, -2.0, 0.5], rows[0]).astype(np.float32)) == pytest.approx(1)
    assert leading_share(np.eye(4, dtype=np.float32)) == pytest.approx(1 / 4)


def test_the_model_hardly_changes(shown: Shown, public: np.ndarray) -> None:  # noqa: F811
    """What is scaled up for the neurons is scaled down for the others."""
    _, _, _, network = shown
    images = to_input(torch.from_numpy(public[:4]))
    outputs = {}
    for share in (0.0, 1.0):
        hidden = hide_neurons(network, public, free, 1, replace(DESIGN, share=share))
        assert len(hidden.neurons) == int(share * len(hidden.weights[f"{FIRST}fc1.weight"]))
        made = deepcopy(network)
        load(made, hidden.weights)
        with torch.no_grad():
            outputs[share] = made(images).main
    with torch.no_grad():
        honest = network(images).main
    torch.testing.assert_close(outputs[0.0], honest, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(outputs[1.0], honest, rtol=1e-3, atol=1e-4)


def test_weights_stay_within_the_limit(shown: Shown, public: np.ndarray) -> None:  # noqa: F811
    _, _, _, network = shown
    start = small.arrays_of(network)

    def limit(weights: Arrays) -> Arrays:
        return {n: np.clip(v, start[n] - 0.1, start[n] + 0.1) for n, v in weights.items()}

    made = hide_neurons(network, public, limit, 1, DESIGN).weights
    assert max(float(np.abs(made[n] - start[n]).max()) for n in start) <= 0.1 + 1e-6
