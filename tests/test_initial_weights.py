"""Weights of round 0: from the seed, the package or a file, in the form that an arm reads."""

from pathlib import Path

import pytest
import small_federation as small

from fl_ppseg import initial_weights, public_weights
from fl_ppseg.arm_models import model_settings
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.errors import InputError
from fl_ppseg.initial_weights import check_arm, initial_models
from fl_ppseg.public_weights import initial_model, public_embedding, shipped_weights
from fl_ppseg.setr.names import EMBEDDING_TENSORS

ARMS = builtin_arms()
FORMS = ("values", "magnitudes", "pixels", "pixel-magnitudes")


def test_from_scratch_depends_on_the_seed_alone(scenes: Path) -> None:
    settings = small.config(scenes)
    first, again, other = (
        small.bits(initial_model(settings, 19, seed).state_dict()) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_one_model_a_seed_and_form(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arms of one form share it; each is built once."""
    built = []

    def counted(config, num_classes, seed):
        built.append((seed, config.model.invariant))
        return initial_model(config, num_classes, seed)

    monkeypatch.setattr(initial_weights, "initial_model", counted)
    arms = ["plain", "per-client-private", "per-image-invariant-shuffle", "conventional-1"]
    models = initial_models(small.config(scenes, arms=arms, seeds=[0, 5]), 19)
    assert sorted(built, key=str) == sorted(models, key=str)
    assert models.keys() == {(0, None), (0, "values"), (5, None), (5, "values")}


def test_embedding_of_a_model_is_a_copy() -> None:
    network = small.model()
    found = public_embedding(network)
    assert set(found) == set(EMBEDDING_TENSORS)
    before = small.bits(found)
    network.backbone.patch_embed.proj.weight.data.fill_(9)
    assert small.bits(found) == before


@pytest.mark.parametrize("form", [None, *FORMS])
def test_shipped_weights_are_those_of_the_form_where_there_are_any(
    form: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_weights, "WEIGHTS", tmp_path)
    plain = tmp_path / "setr_procedural.safetensors"
    assert shipped_weights(form) == plain
    for name in FORMS:
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
