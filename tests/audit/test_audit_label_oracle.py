"""Label maps out of evaluations: won where the coordinator may choose the model, refused else."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import small_federation as small

from clients.policy.node_policy import ArmPolicy, load_policy, save_policy
from fl_ppseg.audit.attacks.evaluation_oracle import evaluation_oracle
from fl_ppseg.audit.attacks.inputs import load
from fl_ppseg.audit.attacks.label_map_reading import Reading, prior, read_map, usual
from fl_ppseg.audit.attacks.label_oracle import Oracle, Question, is_readable
from fl_ppseg.audit.labels import AGREED, OWN, WITHIN, LabelAttack
from fl_ppseg.audit.update import Client, client
from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.views import fit
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.leaks.table import UNCHECKED, LabelFinding
from fl_ppseg.learning.evaluation import evaluate
from fl_ppseg.setr.build import build_setr
from fl_ppseg.setr.model import SETR

SIZE = (16, 32)
NUM_CLASSES = 140
FORM = "pixel-magnitudes"
Attacked = dict[str, LabelFinding]
Streets = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def streets(cities: dict[str, tuple[Scene, ...]]) -> Streets:
    """Images and label maps of the coordinator's own."""
    scenes = [scene for city, part in cities.items() if city != "aachen" for scene in part]
    pairs = [fit(*scene.load(), SIZE, "resize") for scene in scenes]
    return np.stack([image for image, _ in pairs]), np.stack([labels for _, labels in pairs])


def attack_on(
    arm: str, streets: Streets, *, num_requests: int = 40, **changes: Any
) -> tuple[LabelAttack, SETR]:
    settings = small.config(None, arms=[arm], data={"image_size": SIZE}, **changes)
    form = FORM if arm == "per-image-invariant" else None
    section = settings.model.model_copy(update={"invariant": form})
    network = initial_model(settings.model_copy(update={"model": section}), 19, seed=0)
    attack = LabelAttack(settings, arm, network, *streets, num_requests, NUM_CLASSES)
    return attack, network


def played(
    attack: LabelAttack,
    network: SETR,
    scenes: Sequence[Scene],
    change: Callable[[Client], None] = lambda _: None,
) -> Attacked:
    """Findings by model on a node without a trust region, with a policy changed by hand."""
    weights = small.arrays_of(network)
    with client(attack.config, attack.arm, weights, scenes[:1], heldout=scenes[1:3]) as owner:
        change(owner)
        tried = [v for v in attack.variants() if v[0] in (OWN, AGREED)]
        return {found.model: found for found in (attack.tried(owner, *v) for v in tried)}


def agreeing_to(**terms: Any) -> Callable[[Client], None]:
    """Rewrites the owner's policy: it agrees to other terms in every arm."""

    def change(owner: Client) -> None:
        policy = load_policy(owner.policy)
        arms = {name: _with(arm, terms) for name, arm in policy.arms.items()}
        save_policy(policy.model_copy(update={"arms": arms}), owner.policy)

    return change


def _with(arm: ArmPolicy, terms: dict[str, Any]) -> ArmPolicy:
    return ArmPolicy.model_validate(arm.model_dump() | terms)


@pytest.mark.parametrize("arm", ["per-image-invariant", "plain"])
def test_label_maps_are_read_where_the_coordinator_chooses_the_model(
    arm: str, streets: Streets, images: tuple[Scene, ...]
) -> None:
    attack, network = attack_on(arm, streets)
    own = next(other for name, _, other in attack.variants() if name == OWN)
    loose = agreeing_to(model=own["model"].model_dump(), num_classes=NUM_CLASSES, spare=100)
    found = played(attack, network, images, loose)[OWN]
    assert found.right is not None and found.right > 0.8
    assert found.certain > 0.6 and found.without < 0.5
    assert found.num_images == 2


@pytest.mark.parametrize("arm", ["per-image-invariant", "per-client-private"])
def test_another_model_is_refused_and_the_agreed_one_answers_no_more_than_was_agreed(
    arm: str, streets: Streets, images: tuple[Scene, ...]
) -> None:
    attack, network = attack_on(arm, streets)
    limits: list[int] = []

    def note(owner: Client) -> None:
        agreed = load_policy(owner.policy).arms[arm]
        limits.append(agreed.evaluations * agreed.models + agreed.spare)

    found = played(attack, network, images, note)
    assert found[OWN].right is None and found[OWN].num_requests == 0
    assert found[OWN].certain == 0
    assert found[OWN].note.startswith("refused: the owner has agreed to")
    assert 0 < found[AGREED].num_requests <= limits[0]
    assert found[AGREED].right is not None
    assert found[AGREED].without <= found[AGREED].right < 0.75


@pytest.mark.parametrize("arm", ["per-image-invariant", "plain"])
def test_the_node_refuses_made_weights_and_those_moved_into_its_region_tell_less(
    arm: str, streets: Streets, images: tuple[Scene, ...]
) -> None:
    attack, _ = attack_on(arm, streets)
    found = {each.model: each for each in attack.findings(images[:3])}
    assert list(found) == [OWN, AGREED, WITHIN, UNCHECKED]
    refused, moved, told = (found[name] for name in (AGREED, WITHIN, UNCHECKED))
    assert (refused.right, refused.certain, refused.num_requests) == (None, 0, 0)
    assert refused.note.startswith("refused: weights in ")
    assert "from the start that the owner agreed to" in refused.note
    assert told.right is not None and told.num_requests > 0 and told.right > told.without
    assert moved.right is not None and moved.num_requests > 0 and moved.right < told.right


def test_every_further_question_is_refused_and_nothing_at_all_where_evaluation_never_is(
    streets: Streets, images: tuple[Scene, ...]
) -> None:
    attack, network = attack_on("plain", streets, federation={"num_rounds": 1})
    strict = agreeing_to(evaluations=1, spare=1)
    found = played(attack, network, images, strict)[AGREED]
    assert found.num_requests == 2
    assert found.note.startswith("refused: 2 different questions to evaluate")

    def never(owner: Client) -> None:
        policy = load_policy(owner.policy)
        save_policy(policy.model_copy(update={"evaluate": "never"}), owner.policy)

    found = played(attack, network, images, never)[AGREED]
    assert (found.right, found.num_requests) == (None, 0)
    assert "allows no evaluation" in found.note


MODELS = (
    ({}, 19),
    ({"decoder": "pup", "num_convs": 2, "up_scale": 2, "decoder_channels": 32}, 19),
    ({"patch_size": 2, "decoder_channels": 40, "embed_dim": 48, "norm": "batch"}, 80),
)


@pytest.mark.parametrize(("model", "num_classes"), MODELS)
def test_counts_are_those_of_the_places_that_were_asked_for(
    model: dict[str, Any], num_classes: int, streets: Streets
) -> None:
    section = ModelConfig.model_validate(small.SETTINGS["model"] | model)
    network = build_setr(section, num_classes, SIZE, seed=0).eval()
    assert is_readable(network)
    own, targets = streets[0][:5], streets[0][5:8]
    labels = np.random.default_rng(0).integers(0, 19, (3, 32, 64)).astype(np.uint8)
    oracle = Oracle(network, own)
    bins = np.zeros(oracle.grid, np.int64)
    bins[::2, ::2] = 1 + np.arange(bins[::2, ::2].size).reshape(bins[::2, ::2].shape)
    bins[bins > oracle.num_bins] = 0

    def counts(made: Any) -> np.ndarray:
        load(network, made)
        found, _ = evaluate(network, zip(targets, labels, strict=True), num_classes)
        return found.numpy()

    made = oracle.asked(Question(bins))
    wanted = np.zeros((num_classes, num_classes), np.int64)
    answers = oracle.answers(made, (32, 64))
    for each in labels:
        np.add.at(wanted, (each, answers), 1)
    # where two bins weigh alike the last bit decides
    assert np.abs(counts(made) - wanted).sum() < 0.01 * wanted.sum()
    assert len(np.unique(answers)) == len(np.unique(bins))
    edges = np.linspace(-4, 4, num_classes - 1)
    columns = counts(oracle.counted(edges)).sum(axis=0)
    assert columns.sum() == labels.size and set(columns) <= {0, 2048, 4096, 6144}


def test_without_an_answer_there_is_the_most_frequent_class_of_each_place(streets: Streets) -> None:
    _, network = attack_on("plain", streets)
    likely = prior(streets[1], 19, (32, 64))
    found = evaluation_oracle(lambda _: None, Oracle(network, streets[0][:4]), likely, 2, 10)
    assert found.num_requests == 0 and (found.certain == 255).all()
    np.testing.assert_array_equal(found.maps, np.stack([usual(likely)] * 2))


def test_a_count_of_one_class_is_certain_and_others_go_where_they_are_likeliest() -> None:
    likely = np.full((2, 1, 4), 0.5)
    likely[0, 0] = (0.9, 0.2, 0.6, 0.1)
    likely[1] = 1 - likely[0]
    sure, mixed = np.zeros((2, 1, 4), bool)
    sure[0, 0] = mixed[0, 1:3] = True
    readings = [Reading(sure, np.array([0, 1])), Reading(mixed, np.array([1, 1]))]
    found, certain = read_map(readings, np.array([2, 2]), likely)
    assert found.tolist() == [[1, 1, 0, 0]]
    assert certain.tolist() == [[1, 255, 255, 255]]
