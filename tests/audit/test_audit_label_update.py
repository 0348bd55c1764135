"""Training label maps out of updates: won with any model of enough channels, as often as asked."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import small_federation as small
import torch
from torch.nn import functional

from clients.policy import permission
from clients.policy.node_policy import ArmPolicy, load_policy, save_policy
from clients.policy.permission import MAX_WEIGHT
from fl_ppseg.audit.attacks import label_weights
from fl_ppseg.audit.attacks.label_update import first_batch, label_update
from fl_ppseg.audit.attacks.label_weights import LabelWeights, is_readable, spread_of
from fl_ppseg.audit.labels import AGREED, OWN, WITHIN
from fl_ppseg.audit.training_labels import UpdateAttack, right_share
from fl_ppseg.audit.update import Client, client
from fl_ppseg.data.dataset import Scene
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.leaks.table import UNCHECKED

Streets = tuple[np.ndarray, np.ndarray]
NUM_CLASSES = 19
HEAD = {"decoder": "pup", "num_convs": 2, "up_scale": 2, "decoder_channels": 40}
"""The least that two channels a class make."""


def attack_on(arm: str, streets: Streets, **changes: Any) -> UpdateAttack:
    changes.setdefault("model", HEAD)
    settings = small.config(None, arms=[arm], **changes)
    form = "pixel-magnitudes" if arm == "per-image-invariant" else None
    section = settings.model.model_copy(update={"invariant": form})
    network = initial_model(settings.model_copy(update={"model": section}), NUM_CLASSES, seed=0)
    return UpdateAttack(settings, arm, network, *streets, settings.federation.num_rounds)


def owner_of(attack: UpdateAttack, scenes: tuple[Scene, ...]) -> Any:
    return client(attack.config, attack.arm, small.arrays_of(attack.network), scenes)


@pytest.fixture
def rounds() -> dict[str, Any]:
    return {"num_rounds": 6, "last_rounds": 1}


@pytest.fixture(params=["per-image-invariant", "per-client-private"])
def attacked(
    request: pytest.FixtureRequest,
    own_scenes: Streets,
    images: tuple[Scene, ...],
    rounds: dict[str, Any],
) -> Iterator[tuple[UpdateAttack, Client]]:
    """Seven images in batches of two: four steps a round, of which the first is told."""
    attack = attack_on(request.param, own_scenes, federation=rounds)
    with owner_of(attack, images) as owner:
        yield attack, owner


def test_an_update_tells_the_class_counts_of_its_first_step_place_by_place(
    attacked: tuple[UpdateAttack, Client],
) -> None:
    attack, owner = attacked
    assert is_readable(attack.network)
    weights = LabelWeights(attack.network, attack.own)
    for number in (1, attack.config.federation.num_rounds):
        exchange = owner.trained(weights.made, number)
        assert not isinstance(exchange, str) and exchange.num_steps == 4
        told = weights.counts(exchange, weights.logits)
        batch = first_batch(0, number, owner.name, 7, 2)
        wanted = _shares(owner.truth.labels[batch > 0], weights)
        others = _shares(owner.truth.labels[batch == 0], weights)
        assert np.abs(told - wanted).mean() < 0.01 < 0.02 < np.abs(told - others).mean()
        assert np.quantile(np.abs(told - wanted), 0.99) < 0.1


def _shares(labels: np.ndarray, weights: LabelWeights) -> np.ndarray:
    """What a step with these label maps tells, by hand."""
    given = torch.from_numpy(labels.astype(np.float32))[:, None]
    met = functional.interpolate(given, size=weights.logits, mode="nearest-exact")[:, 0].long()
    often = torch.stack([(met == c).double().mean(dim=0) for c in range(NUM_CLASSES)])
    size = weights.seen.shape[1:]
    places = torch.zeros(1, NUM_CLASSES, *size, dtype=torch.float64, requires_grad=True)
    seen = functional.interpolate(places, size=weights.logits, mode="bilinear")
    (seen * often).sum().backward()
    assert places.grad is not None
    return np.asarray(places.grad[0].numpy() / spread_of(size, weights.logits))


@pytest.mark.parametrize("arm", ["per-image-invariant", "per-client-private"])
def test_the_node_refuses_weights_that_tell_most_of_every_map_where_it_does_not_compare(
    arm: str, own_scenes: Streets, images: tuple[Scene, ...], rounds: dict[str, Any]
) -> None:
    """The bound of 1e6 is no help: they are made within it. The trust region is."""
    attack = attack_on(arm, own_scenes, federation=rounds)
    found = {each.model: each for each in attack.findings(images)}
    assert list(found) == [OWN, AGREED, WITHIN, UNCHECKED]
    assert found[OWN].right is None and found[OWN].num_requests == 0
    assert found[OWN].note == "refused: the owner has agreed to another model"
    refused = found[AGREED]
    assert (refused.right, refused.certain, refused.num_requests) == (None, 0, 0)
    assert refused.note.startswith("refused: weights in ")
    assert "from the start that the owner agreed to" in refused.note
    told = found[UNCHECKED]
    assert (told.num_requests, told.num_images) == (rounds["num_rounds"], 7)
    assert told.right is not None and told.right > told.without + 0.15
    moved = found[WITHIN]
    assert moved.num_requests == rounds["num_rounds"] and moved.note == ""
    assert moved.right is not None and moved.right < moved.without + 0.05
    made = LabelWeights(attack.network, attack.own).made
    assert 0.5 * MAX_WEIGHT < max(np.abs(value).max() for value in made.values()) <= MAX_WEIGHT


def test_louder_weights_are_refused_and_tell_nothing(
    attacked: tuple[UpdateAttack, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of this design held position embeddings of 1e15; without the bound they tell."""
    attack, owner = attacked
    monkeypatch.setattr(label_weights, "_LARGEST", 4 * MAX_WEIGHT)
    refused = attack.tried(owner, *attack.variants()[1])
    assert (refused.right, refused.certain, refused.num_requests) == (None, 0, 0)
    assert refused.note.startswith("refused: expected weights of at most 1e+06 in ")
    monkeypatch.setattr(permission, "MAX_WEIGHT", np.inf)
    told = attack.tried(owner, *attack.variants()[1])
    assert told.right is not None and told.right > told.without + 0.15


def test_training_label_maps_are_read_where_the_coordinator_chooses_the_model(
    own_scenes: Streets, images: tuple[Scene, ...]
) -> None:
    """One image: what is told is no sum, at every second pixel of it both ways."""
    federation = {"num_rounds": 1, "last_rounds": 1}
    attack = attack_on("per-image-invariant", own_scenes, federation=federation)
    own, agreed, _ = attack.variants()
    assert own[1].patch_size == 2
    with owner_of(attack, images[:1]) as owner:
        policy = load_policy(owner.policy)
        arms = {
            name: ArmPolicy.model_validate(arm.model_dump() | {"model": own[1].model_dump()})
            for name, arm in policy.arms.items()
        }
        save_policy(policy.model_copy(update={"arms": arms}), owner.policy)
        found = attack.tried(owner, *own)
        refused = attack.tried(owner, *agreed)
    assert found.right is not None and found.right > 0.85 and found.certain > 0.5
    assert found.without < 0.6
    assert refused.right is None and refused.note.startswith("refused: ")


def test_no_more_updates_are_told_than_were_agreed_to(
    own_scenes: Streets, images: tuple[Scene, ...]
) -> None:
    attack = attack_on("plain", own_scenes, federation={"num_rounds": 1, "last_rounds": 1})
    weights = LabelWeights(attack.network, attack.own)
    with owner_of(attack, images) as owner:
        limit = load_policy(owner.policy).arms["plain"].spare + 1
        for number in range(limit):
            weights.made["decoder.classifier.conv.bias"][0] = 1e-6 * (1 + number)
            assert not isinstance(owner.trained(weights.made, 1), str)
        found = attack.tried(owner, *attack.variants()[1])
    assert (found.right, found.num_requests) == (None, 0)
    assert found.note.startswith(f"refused: {limit} different questions to train")


@pytest.mark.parametrize(
    "model", [{"decoder": "naive"}, HEAD | {"decoder_channels": 37}, HEAD | {"norm": "batch"}]
)
def test_models_that_such_weights_are_not_made_for_are_named(
    model: dict[str, Any], own_scenes: Streets, images: tuple[Scene, ...]
) -> None:
    attack = attack_on("plain", own_scenes, model=model)
    assert not is_readable(attack.network)
    with owner_of(attack, images[:2]) as owner:
        found = attack.tried(owner, *attack.variants()[1])
    assert (found.right, found.num_requests) == (None, 0)
    assert found.note.startswith("the attack applies to PUP decoders")


def test_sums_of_known_batches_are_told_apart() -> None:
    drawn = np.random.default_rng(0)
    labels = drawn.integers(0, 3, (4, 6, 8)).astype(np.uint8)
    hot = np.stack([labels == c for c in range(3)], axis=1).astype(float)
    batches = [np.array(each, float) for each in ((1, 1, 0, 0), (0, 1, 1, 0), (1, 0, 1, 0))]
    sums = [np.tensordot(each, hot, 1) / each.sum() for each in batches]
    likely = np.full((3, 6, 8), 1 / 3)
    found, certain = label_update(sums, batches, likely, (6, 8))
    assert (found[:3] == labels[:3]).all() and (certain[:3] == labels[:3]).all()
    assert (certain[3] == 255).all()  # never in a batch
    assert right_share(labels[:3], found[:3]) == 1
    assert right_share(np.where(labels == 0, np.uint8(255), labels), found * 0) == 0
