"""The named experiments: each loads, names arms and classes that exist, and builds its model."""

import math
from collections.abc import Iterator

import pytest
import torch

from fl_ppseg import simulate
from fl_ppseg.config.documents import read_yaml
from fl_ppseg.config.loading import (
    arms_of,
    builtin_arms,
    config_of,
    configs_dir,
    load_config,
    read_values,
)
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.ciphers.invariance import invariant_form
from fl_ppseg.crypto.ciphers.registry import get_cipher
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.experiment.cells.grid import Cell, cells_of
from fl_ppseg.report.published import published_for
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.decoders import LinearHead, UpHead
from fl_ppseg.setr.model import SETR

NAMED = sorted(path.stem for path in configs_dir().glob("*.yaml") if path.stem != "arms")
FULL_SCALE = ("cityscapes-18-setr-pup-vit-base", "feddrive-144", "sueyoshi-table1")
CITYSCAPES_TRAIN = (
    365, 316, 248, 221, 196, 196, 174, 154, 144, 142, 122, 119, 109, 99, 96, 95, 94, 85,
)  # fmt: skip
"""Images of each training client."""


def runs() -> Iterator[tuple[str, Config]]:
    """Every config that one run would have: of a comparison, those of its cells."""
    for name in NAMED:
        config = load_config(name)
        yield from (
            [(cell.config.name, cell.config) for cell in cells_of(read_values(name), name)]
            if config.cells
            else [(name, config)]
        )


RUNS = dict(runs())


def model_of(config: Config) -> SETR:
    """The architecture, without memory for its weights."""
    num_classes = load_class_table(config.data.classes).num_classes
    with torch.device("meta"):
        return build_architecture(config.model, num_classes, config.data.image_size)


@pytest.mark.parametrize("name", NAMED)
def test_every_named_experiment_loads_by_name_and_by_path(name: str) -> None:
    config = load_config(name)
    assert config == load_config(configs_dir() / f"{name}.yaml")
    assert config.name == name
    assert list(arms_of(config)) == list(config.arms)


@pytest.mark.parametrize("name", RUNS)
def test_its_model_can_be_built_and_its_ciphers_found(name: str) -> None:
    config = RUNS[name]
    model = model_of(config)
    height, width = config.data.image_size
    assert model.grid == (height // model.patch_size, width // model.patch_size)
    assert len(model.auxiliary) == config.model.num_auxiliary
    for arm in arms_of(config).values():
        if arm.cipher is not None:
            get_cipher(arm.cipher)
        if arm.embedding == "invariant":
            assert invariant_form(str(arm.cipher)) is not None


def test_without_a_config_the_default_one_is_run() -> None:
    """What simulate does alone is what the file says, and every line of it differs or names it."""
    options = simulate._parser().parse_args([])
    found = config_of(simulate._values(options), simulate._source(options))
    assert found == load_config("default")
    written = read_yaml(configs_dir() / "default.yaml")
    assert isinstance(written, dict)
    assert written.keys() == {"name", "arms", "clients", "seeds", "training", "federation"}
    assert (
        found.model_copy(update={"training": Config().training, "federation": Config().federation})
        == Config()
    )


def test_the_default_compares_ours_with_plain_and_the_reconstruction() -> None:
    assert load_config("default").arms == (
        "plain", "per-client-private", "per-image-invariant-labels", "per-image",
    )  # fmt: skip
    quick = load_config("quick")
    assert (quick.arms, quick.clients) == (Config().arms, Config().clients)
    assert quick.federation.num_rounds < load_config("default").federation.num_rounds


def test_the_papers_config_has_every_arm_there_is() -> None:
    config = load_config("papers-laptop")
    assert set(config.arms) == set(builtin_arms())
    assert config.arms[0] == "plain"
    assert config.model == Config().model


@pytest.mark.parametrize("name", ["marks-laptop", "marks-camvid-drives", "marks-labelme"])
def test_the_marks_are_taken_over_five_paired_seeds(name: str) -> None:
    config = load_config(name)
    assert len(config.seeds) == 5
    assert {"plain", "per-image"} < set(config.arms)
    ours = {name for name, arm in arms_of(config).items() if arm.note.startswith("ours")}
    assert ours == {name for name, arm in builtin_arms().items() if arm.note.startswith("ours")}


def test_the_marks_of_all_worlds_are_of_the_same_arms() -> None:
    laptop, drives, places = (
        load_config(name) for name in ("marks-laptop", "marks-camvid-drives", "marks-labelme")
    )
    assert drives.arms == laptop.arms == places.arms
    assert {"plain", "centralised", "local-only"} < set(drives.arms)
    passes = [c.federation.num_rounds * c.federation.fraction_train for c in (drives, places)]
    assert [round(number) for number in passes] == [13, 12]
    tables = [load_class_table(c.data.classes).num_classes for c in (drives, places)]
    assert tables == [11, 8]


def test_the_marks_on_procedural_scenes_are_of_the_default_command() -> None:
    laptop, default = load_config("marks-laptop"), load_config("default")
    assert laptop.training == default.training
    assert laptop.data == default.data
    assert set(default.arms) < set(laptop.arms)
    schedule = {"evaluate_every": default.federation.evaluate_every}
    assert laptop.federation.model_copy(update=schedule) == default.federation


def test_camvid_has_its_own_classes() -> None:
    config = load_config("camvid-18")
    assert load_class_table(config.data.classes).num_classes == 11
    assert {"per-image-invariant", "per-image-invariant-spatial"} < set(config.arms)


@pytest.mark.parametrize("name", FULL_SCALE)
def test_full_scale_starts_from_published_weights_on_a_gpu(name: str) -> None:
    config = load_config(name)
    assert config.device == "cuda"
    assert config.engine == "in-process"
    assert config.model.pretrained
    assert config.data.root is None, "the user says where Cityscapes lies"


# Table 1 of Sueyoshi et al. 2025.


@pytest.fixture(scope="module")
def table1() -> list[Cell]:
    return cells_of(read_values("sueyoshi-table1"), "sueyoshi-table1")


def test_table_1_has_two_backbones_three_decoders_and_three_published_methods(
    table1: list[Cell],
) -> None:
    models = [(cell.config.model.backbone, cell.config.model.decoder) for cell in table1]
    assert models == [
        (f"vit_{size}_patch16_384", decoder)
        for size in ("base", "large")
        for decoder in ("mla", "pup", "naive")
    ]
    for cell in table1:
        for arm in cell.config.arms:
            assert published_for(cell.config.model.backbone, cell.config.model.decoder, arm)


def test_its_methods_are_the_built_in_ones_in_one_place(table1: list[Cell]) -> None:
    arms, builtin = arms_of(table1[0].config), builtin_arms()
    assert list(arms) == ["plain", "conventional-2", "domain-adaptation"]
    for name, arm in arms.items():
        assert arm == builtin[name].model_copy(update={"training": "centralised", "note": arm.note})


def test_it_trains_for_40k_iterations(table1: list[Cell]) -> None:
    """A tenth of each client, at least one image, is held out; a round is a pass over the rest."""
    config = table1[0].config
    num_images = sum(n - max(1, n // 10) for n in CITYSCAPES_TRAIN)
    assert (sum(CITYSCAPES_TRAIN), num_images) == (2975, 2687)
    steps = math.ceil(num_images / config.training.batch_size) * config.training.local_epochs
    assert abs(steps * config.federation.num_rounds - 40_000) < 500
    text = (configs_dir() / "sueyoshi-table1.yaml").read_text("utf-8")
    assert f"{steps} steps over {num_images} images" in text


def test_its_training_is_that_of_setr_in_mmsegmentation(table1: list[Cell]) -> None:
    """configs/setr/setr_vit-l_{naive,pup}_8xb1-80k_cityscapes-768x768.py."""
    for cell in table1:
        training, model = cell.config.training, model_of(cell.config)
        assert (training.optimizer, training.learning_rate, training.momentum) == ("sgd", 0.01, 0.9)
        assert (training.head_multiplier, training.poly_power) == (10, 0.9)
        assert (training.weight_decay, training.batch_size) == (0, 8)
        assert training.auxiliary_weight == 0.4
        assert cell.config.data.image_size == (768, 768)
        assert (model.patch_size, model.grid) == (16, (48, 48))
        head = LinearHead if cell.config.model.decoder == "mla" else UpHead
        assert [type(auxiliary) for auxiliary in model.auxiliary] == [head] * 3


def test_feddrive_has_its_clients_rounds_and_five_at_a_time() -> None:
    config = load_config("feddrive-144")
    assert (config.clients, config.federation.num_rounds) == (144, 1600)
    assert round(config.federation.fraction_train * config.clients) == 5
    assert set(config.arms) == {"plain", "per-client-private", "per-image-invariant"}
