"""Sums of clients' updates: what a coordinator keeps of them, and that it shows less than one."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import attacked
import numpy as np
import pytest
import small_federation as small
import torch
from torch.nn import functional

from fl_ppseg.audit.attacks.closed_form_gradient import closed_form_gradient
from fl_ppseg.audit.attacks.gradients import gradient_of
from fl_ppseg.audit.attacks.imprinting import _num_windows, _quantiles
from fl_ppseg.audit.attacks.label_update import first_batch
from fl_ppseg.audit.attacks.token_span import token_span
from fl_ppseg.audit.cohort import Cohort, Lots, MeanUpdate, cohort, companions
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.rounds import rounds
from fl_ppseg.audit.training_labels import UpdateAttack
from fl_ppseg.audit.update import Client
from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Scene, open_dataset
from fl_ppseg.leaks.scores import score_images
from fl_ppseg.learning.reach import largest_of, update_bound
from fl_ppseg.secure_sum.ring import Ring
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from strategies.aggregation.streaming_mean import StreamingMean

Cities = dict[str, tuple[Scene, ...]]


@pytest.fixture(scope="module")
def lots(cities: Cities) -> Lots:
    """Three images, and one, of two cities."""
    first, second = list(cities)[:2]
    return {first: cities[first][:3], second: cities[second][:1]}


def config(arm: str, **training: Any) -> Config:
    return small.config(None, arms=[arm], training=attacked.ONE_STEP | training)


def played(arm: str, lots: Lots, *, is_rounded: bool = False, **training: Any) -> Exchange:
    settings, weights = config(arm, **training), small.arrays_of(small.model())
    with cohort(settings, arm, weights, lots, is_rounded=is_rounded) as owners:
        return owners.answer(weights)


def single_updates(arm: str, lots: Lots, **training: Any) -> dict[str, Exchange]:
    return {name: played(arm, {name: own}, **training) for name, own in lots.items()}


ADAMW = {"optimizer": "adamw", "learning_rate": 1e-3, "batch_size": 2}


@pytest.mark.parametrize("training", [{}, ADAMW], ids=["sgd", "adamw"])
def test_the_coordinator_keeps_the_mean_that_fedavg_makes(
    training: dict[str, Any], lots: Lots
) -> None:
    found, alone = played("plain", lots, **training), single_updates("plain", lots, **training)
    whole = StreamingMean(next(iter(alone.values())).sent)
    for each in alone.values():
        whole.add(each.returned, each.num_examples)
    for name, value in whole.result().items():
        np.testing.assert_allclose(found.returned[name], value, rtol=1e-6, atol=1e-9)
        assert found.returned[name].dtype == np.float64
    assert found.num_examples == 4
    assert dict(found.summed) == dict(zip(lots, (3, 1), strict=True))
    assert found.num_steps == max(each.num_steps for each in alone.values())


def test_rounded_updates_are_off_by_no_more_than_the_ring_says(lots: Lots) -> None:
    exact = played("plain", lots, **ADAMW)
    rounded = played("plain", lots, is_rounded=True, **ADAMW)
    bound = update_bound(exact.training, 3, largest_of(exact.sent))
    assert bound is not None
    worst = Ring(bound, 2, 3).worst_error(2, 4)
    off = {n: np.abs(v - rounded.returned[n]).max() for n, v in exact.returned.items()}
    assert 0 < max(off.values()) <= worst * (1 + 1e-6)


def test_rounding_erases_changes_that_are_small_beside_the_weights(lots: Lots) -> None:
    """A bias that moves by 1e-12 among weights of 1e5: what made weights are read from."""
    sent = {"large": np.full(3, 1e5, np.float32), "small": np.zeros(3, np.float32)}
    exchange = played("plain", lots, **ADAMW)
    moved = {"large": sent["large"], "small": np.full(3, 1e-12, np.float32)}
    one = Exchange(
        sent=sent,
        returned=moved,
        model=exchange.model,
        training=exchange.training,
        num_classes=19,
        image_size=(32, 64),
        round=1,
        num_rounds=1,
        num_examples=2,
    )
    bound = update_bound(exchange.training, 2, 1e5)
    assert bound is not None
    for ring, wanted in ((None, 1e-12), (Ring(bound, 2, 2), 0.0)):
        mean = MeanUpdate(one, ring)
        mean.add("a", one)
        mean.add("b", one)
        np.testing.assert_allclose(mean.exchange().returned["small"], wanted, atol=1e-18)


def test_an_embedding_that_owners_share_a_key_for_fits_the_ciphertexts_of_all(lots: Lots) -> None:
    arm, weights = "domain-adaptation", small.arrays_of(small.model())
    with cohort(config(arm), arm, weights, lots) as owners:
        assert isinstance(owners, Cohort)
        sent = torch.from_numpy(owners.answer(weights).sent[EMBEDDING_TENSORS[0]])
        truths = [each.truth for each in owners._clients]
    public = torch.from_numpy(weights[EMBEDDING_TENSORS[0]])
    for truth in truths:
        stored, plain = (
            torch.from_numpy(seen).float() * 2 / 255 - 1 for seen in (truth.stored, truth.plain)
        )
        torch.testing.assert_close(
            functional.conv2d(stored, sent, stride=8), functional.conv2d(plain, public, stride=8)
        )


def test_signs_of_several_clients_tell_no_sizes(lots: Lots) -> None:
    one_step = ADAMW | {"batch_size": 16}
    alone = single_updates("plain", lots, **one_step)
    assert all(each.num_steps == 1 and each.tells_sizes for each in alone.values())
    summed = played("plain", lots, **one_step)
    assert summed.num_steps == 1 and not summed.tells_sizes
    assert token_span(summed, np.zeros((8, 3, 32, 64), np.uint8)) is None
    name = "backbone.blocks.0.attn.qkv.weight"
    steps = [gradient_of(each, name).value for each in alone.values()]
    assert np.abs(gradient_of(summed, name).value).max() <= 1 + 1e-3
    assert max(np.abs(step).max() for step in steps) < 1  # gradients, not steps


def test_a_refusal_of_one_node_is_the_answer(lots: Lots) -> None:
    weights = small.arrays_of(small.model())
    with cohort(config("plain"), "plain", weights, lots) as owners:
        answer = owners.trained(weights, num_classes=7)
    assert isinstance(answer, str) and answer.startswith("refused: ")


def test_one_client_alone_is_no_sum(lots: Lots) -> None:
    name = next(iter(lots))
    weights = small.arrays_of(small.model())
    with cohort(config("plain"), "plain", weights, {name: lots[name]}) as owner:
        assert isinstance(owner, Client)
        assert not owner.answer(weights).summed


def test_of_a_lone_image_gradients_return_it_and_of_a_sum_they_do_not(cities: Cities) -> None:
    group = {name: own[:1] for name, own in cities.items()}
    first = next(iter(group))

    def seen(lots: Lots) -> float:
        with cohort(config("plain"), "plain", weights, lots) as owners:
            guess, truth = closed_form_gradient(owners.answer(weights)), owners.truth.plain
        assert guess is not None
        return score_images(truth, guess, 8).ssim

    weights = small.arrays_of(small.model())
    assert len(group) >= 3
    assert seen({first: group[first]}) > 0.9
    assert seen(group) < 0.6


def test_companions_are_the_other_clients_and_then_their_further_images(scenes: Any) -> None:
    dataset = open_dataset(scenes, load_class_table("cityscapes"))
    split = dataset.split("train")
    first = next(iter(split))
    found = companions(dataset, first, len(split) + 1, 2)
    others = [name for name in split if name != first]
    assert set(list(found)[: len(others)]) == set(others)
    further = list(found)[len(others) :]
    assert len(further) == 2 and all(name.endswith("-2") for name in further)
    ids = [scene.image_path for lot in found.values() for scene in lot]
    assert len(ids) == len(set(ids))
    assert not {scene.image_path for scene in split[first]} & set(ids)
    assert all(len(lot) <= 2 for lot in found.values())
    assert companions(dataset, first, 0, 2) == {}


def test_of_many_images_each_round_divides_another_part_of_the_numbers() -> None:
    numbers = np.random.default_rng(0).normal(size=400)
    assert _num_windows(24, 16) == _num_windows(24, 48) == 1
    num = _num_windows(24, 288)
    assert num == 13  # 23 gaps a round between two thresholds each
    parts = [_quantiles(numbers, 24, (k, num)) for k in range(num)]
    assert parts[0][0] < numbers.min()
    assert parts[-1][-1] == numbers.max()
    for one, other in pairwise(parts):
        assert other[0] == pytest.approx(one[-1])
        assert (np.diff(other) > 0).all()
    np.testing.assert_array_equal(_quantiles(numbers, 24), _quantiles(numbers, 24, (0, 1)))


@pytest.fixture(scope="module")
def kinds(cities: Cities) -> Iterator[Any]:
    """All kinds of rounds of an arm, alone and in a sum."""
    first, *others = cities
    settings = small.config(None, arms=["plain"], model={"embed_dim": 32})
    own = np.zeros((8, 3, 32, 64), np.uint8)
    own[:] = np.random.default_rng(0).integers(0, 256, (8, 3, 1, 1))
    lots = {name: cities[name][:2] for name in others}
    network = small.model()
    parts: tuple[Any, ...] = (settings, "plain", network, own, cities[first][:2], 2)
    yield rounds(*parts), rounds(*parts, lots), len(cities)


def test_rounds_of_a_sum_say_so_and_are_judged_by_one_client(kinds: Any) -> None:
    alone, summed, num = kinds
    assert [each.kind for each in summed] == ["single", "trained", "imprinted"]
    for one, other in zip(alone, summed, strict=True):
        assert not one.note.startswith("sum") and all(not e.summed for e in one.exchanges)
        assert other.note.startswith(f"sum over {num} clients: ")
        np.testing.assert_array_equal(one.truth, other.truth)
        assert len(one.exchanges) == len(other.exchanges)
        assert all(len(e.summed) == num for e in other.exchanges)


STREETS = Any
HEAD = {"decoder": "pup", "num_convs": 2, "up_scale": 2, "decoder_channels": 40}


def test_first_steps_of_a_sum_count_each_image_as_its_client_weighs(
    own_scenes: STREETS, cities: Cities
) -> None:
    settings = small.config(None, arms=["plain"], model=HEAD, training={"batch_size": 2})
    attack = UpdateAttack(settings, "plain", small.model(**HEAD), *own_scenes, 2)
    exchange = played("plain", {"a": next(iter(cities.values()))[:1]})
    summed = Exchange(**{**vars(exchange), "num_examples": 4, "summed": {"a": 3, "b": 1}})
    found = attack._first_steps("a", summed)
    batch = first_batch(0, 1, "a", 3, 2)
    # of 4 images; a's two weigh 3/4 together, b's one 1/4; three were met
    np.testing.assert_allclose(found, [*(batch * 3 / 2 * 3 / 4), 3 / 4])
    np.testing.assert_allclose(found.sum(), 3)
    np.testing.assert_array_equal(attack._first_steps("a", exchange), [1])


def test_label_maps_are_told_less_by_a_sum(
    own_scenes: STREETS, cities: Cities, images: Sequence[Scene]
) -> None:
    rounds_of = {"num_rounds": 4, "last_rounds": 1}
    settings = small.config(None, arms=["plain"], model=HEAD, federation=rounds_of)
    attack = UpdateAttack(settings, "plain", small.model(**HEAD), *own_scenes, 4)
    first = images[0].city
    others = {name: own for name, own in cities.items() if name != first}
    alone, summed = (attack.findings(images[:4], lots)[-1] for lots in ({}, others))
    assert alone.right is not None and summed.right is not None
    assert alone.num_requests == summed.num_requests == 4
    assert summed.num_images == alone.num_images
    assert alone.right > summed.right > summed.without - 0.02
