"""Weights of round 0: from the seed, the package or a file, in the form that an arm reads."""

from itertools import product
from pathlib import Path

import pytest
import small_federation as small
from safetensors.torch import load_file

from clients.policy.node_policy import load_policy, policy_path
from clients.policy.start_weights import read_start
from clients.vault.shards.start_model import start_of
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import builtin_arms, load_config
from fl_ppseg.config.sections import Config, ModelConfig
from fl_ppseg.crypto.arm_models import SHUFFLED, embedding_reads, model_settings
from fl_ppseg.experiment import initial_weights
from fl_ppseg.experiment.initial_weights import check_arm, initial_models
from fl_ppseg.federation.public_weights import initial_model, public_embedding
from fl_ppseg.setr import shipped
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.setr.shipped import shipped_weights
from fl_ppseg.setr.weights import save_weights
from fl_ppseg.system.errors import InputError

ARMS = builtin_arms()
FORMS = ("values", "magnitudes", "pixels", "pixel-magnitudes")


def test_from_scratch_depends_on_the_seed_alone(scenes: Path) -> None:
    settings = small.config(scenes)
    first, again, other = (
        small.bits(initial_model(settings, 19, seed).state_dict()) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_arms_whose_embeddings_read_the_same_share_a_model(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def counted(config, num_classes, seed, reads):
        built.append((seed, config.model.invariant, reads))
        return initial_model(config, num_classes, seed, reads)

    monkeypatch.setattr(initial_weights, "initial_model", counted)
    shared = {
        None: ("plain", "per-client-private", "conventional-1"),
        "values": ("per-image-invariant-shuffle",),
        SHUFFLED: ("per-image", "per-image-per-block", "per-client"),
    }
    arms = [arm for group in shared.values() for arm in group]
    models = initial_models(small.config(scenes, arms=arms, seeds=[0, 5]), 19)
    forms = [(None, None), ("values", "values"), (None, SHUFFLED)]
    assert built == [(seed, *form) for seed in (0, 5) for form in forms]
    assert models.keys() == {(seed, arm) for seed in (0, 5) for arm in arms}
    for seed, group in product((0, 5), shared.values()):
        assert len({id(models[seed, arm]) for arm in group}) == 1
    assert len({id(model) for model in models.values()}) == 6


def test_embedding_of_a_model_is_a_copy() -> None:
    network = small.model()
    found = public_embedding(network)
    assert set(found) == set(EMBEDDING_TENSORS)
    before = small.bits(found)
    network.backbone.patch_embed.proj.weight.data.fill_(9)
    assert small.bits(found) == before


@pytest.mark.parametrize("form", [None, *FORMS, SHUFFLED])
def test_shipped_weights_are_those_for_what_is_read_where_there_are_any(
    form: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
    plain = tmp_path / "setr_procedural.safetensors"
    assert shipped_weights(form) == plain
    for name in (*FORMS, SHUFFLED):
        (tmp_path / f"setr_procedural_{name}.safetensors").touch()
    assert shipped_weights(form).stem == "setr_procedural" + (f"_{form}" if form else "")


@pytest.mark.parametrize(
    ("arm", "form"),
    [
        ("plain", None),
        ("per-image", None),
        ("per-client-private", None),
        ("per-image-invariant-shuffle", "values"),
        ("per-image-invariant-spatial", "pixels"),
        ("per-image-invariant-np", "magnitudes"),
        ("per-image-invariant", "pixel-magnitudes"),
    ],
)
def test_form_follows_from_the_cipher(arm: str, form: str | None) -> None:
    model = ModelConfig()
    assert model_settings(model, arm, ARMS[arm]) == model.model_copy(update={"invariant": form})


READ = {
    **dict.fromkeys(("per-client", "per-image", "per-image-per-block"), SHUFFLED),
    "per-image-invariant": "pixel-magnitudes",
    "per-image-invariant-labels": "pixel-magnitudes",
    "per-image-invariant-spatial": "pixels",
    "per-image-invariant-spatial-labels": "pixels",
    "per-image-invariant-shuffle": "values",
    "per-image-invariant-np": "magnitudes",
}
"""By arm; all others read images, under no key, a known one or one that all share."""


@pytest.mark.parametrize("arm", ARMS)
def test_what_an_embedding_reads_follows_from_who_has_the_keys(arm: str) -> None:
    settings = model_settings(ModelConfig(), arm, ARMS[arm])
    assert embedding_reads(settings, ARMS[arm]) == READ.get(arm)


def test_other_ciphers_under_unshared_keys_have_no_start_of_their_own() -> None:
    for cipher in ("shuffle-spatial", "negative-positive", "shuffle+negative-positive"):
        arm = ARMS["per-image"].model_copy(update={"cipher": cipher})
        assert embedding_reads(ModelConfig(), arm) is None
    frozen = ARMS["per-image"].model_copy(update={"embedding": "frozen"})
    assert embedding_reads(ModelConfig(), frozen) == SHUFFLED


def test_every_arm_starts_from_the_shipped_file_for_what_it_reads() -> None:
    """In the simulation, in an owner's own copy for its node, and in the coordinator's run."""
    names = ["plain", "per-client-private", "conventional-2", "domain-adaptation", *READ]
    config = Config(arms=tuple(names))
    models = initial_models(config, 19)
    for name in names:
        has_head = ARMS[name].labels == "encrypted"
        file = shipped_weights(READ.get(name), pixel_head=has_head)
        ending = "_pixel-head" if has_head else ""
        assert READ.get(name) is None or file.stem == f"setr_procedural_{READ[name]}{ending}"
        wanted = small.bits({key: value.float() for key, value in load_file(file).items()})
        assert small.bits(models[0, name].state_dict()) == wanted, name
        assert small.bits(start_of(config, name, ARMS[name], 19, 0)) == wanted, name


def test_a_file_given_by_its_path_is_for_all_arms(tmp_path: Path) -> None:
    given = tmp_path / "given.safetensors"
    given.write_bytes(shipped_weights(None).read_bytes())
    config = load_config(None, [f"model.weights={given}"], {"arms": ["plain", "per-image"]})
    models = initial_models(config, 19)
    assert len({small.bits(model.state_dict()) for model in models.values()}) == 1


def test_nodes_hold_the_weights_of_each_arm_to_its_own_start(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And train from it: a node refuses weights that are not of its trust region."""
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
    networks = {"": small.model(), f"_{SHUFFLED}": small.model()}
    for suffix, network in networks.items():
        network.backbone.pos_embed.data += len(suffix)
        save_weights(network, tmp_path / f"setr_procedural{suffix}.safetensors")
    expected = {"plain": "", "conventional-2": "", "per-image": f"_{SHUFFLED}"}
    settings = small.config(scenes, arms=list(expected), model={"weights": "shipped"})
    experiment = small.prepared(settings, tmp_path)
    policies = [load_policy(policy_path(experiment.nodes, n)) for n in range(experiment.num_nodes)]
    for name, suffix in expected.items():
        wanted = small.bits(networks[suffix].state_dict())
        assert small.bits(small.final(experiment.folder, name)) == wanted
        starts = {(policy.arms[name].start or {})[0] for policy in policies}
        assert [small.bits(read_start(folder)) for folder in starts] == [wanted]
    small.federate(experiment)
    for name in expected:
        newest = experiment.folder.latest(name, 0)
        assert newest is not None and newest.round == 2


def test_plain_images_may_be_read_in_a_form_too() -> None:
    model = ModelConfig(invariant="values")
    assert model_settings(model, "plain", ARMS["plain"]) == model


def test_cipher_without_invariant_form_names_those_that_have_one() -> None:
    arm = ARMS["per-image-invariant"].model_copy(update={"cipher": "ffx"})
    with pytest.raises(InputError) as caught:
        model_settings(ModelConfig(), "mine", arm)
    text = str(caught.value)
    assert text.startswith("arm mine: cipher ffx has no invariant embedding")
    possible = text.partition("ciphers that have one: ")[2]
    assert "shuffle, " in possible and "negative-positive" in possible and "ffx" not in possible
    assert "\n" not in text


@pytest.mark.parametrize("arm", ["per-client-private", "domain-adaptation", "conventional-1"])
def test_what_reads_a_canonical_form_cannot_be_adapted(arm: str) -> None:
    with pytest.raises(InputError, match=f"arm {arm}: .* leave it out") as caught:
        model_settings(ModelConfig(invariant="values"), arm, ARMS[arm])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arm", ["per-client-private", "domain-adaptation", "conventional-1"])
def test_cipher_that_is_not_linear_is_refused_before_the_first_image(
    arm: str, scenes: Path
) -> None:
    table = {"odd": ARMS[arm].model_dump() | {"cipher": "ffx"}}
    with pytest.raises(InputError, match="arm odd: cipher 'ffx' does more than") as caught:
        initial_models(small.config(scenes, arms=["odd"], arm_table=table), 19)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cipher": "rot13"}, "arm mine: unknown cipher 'rot13'"),
        ({"cipher": "etc"}, "arm mine: .*7"),
        ({"cipher": "ffx", "embedding": "private"}, "arm mine: .*no embedding can be adapted"),
        ({"cipher": "ffx", "embedding": "invariant"}, "arm mine: .*no invariant embedding"),
    ],
)
def test_an_arm_that_cannot_be_is_found_out_by_its_name(change: dict[str, str], said: str) -> None:
    common = {"note": "x", "key_mode": "per-client", "block_scope": "common"}
    arm = ArmConfig.model_validate({**common, "key_lifetime": "derived", **change})
    with pytest.raises(InputError, match=f"^{said}"):
        check_arm(ModelConfig(), "mine", arm, 7 if change["cipher"] == "etc" else 8)
    good = arm.model_copy(update={"cipher": "shuffle"})
    check_arm(ModelConfig(), "mine", good, 8)
