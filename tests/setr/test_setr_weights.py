"""Weights of SETR: from a seed, from files of ours, and from timm's, folded and resampled."""

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from small_setr import IMAGE_SIZE, TINY, images, tiny
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.setr.backbone import create_backbone, fold_normalisation
from fl_ppseg.setr.build import build_architecture, build_setr
from fl_ppseg.setr.names import EMBEDDING_TENSORS, POSITION_TENSOR
from fl_ppseg.setr.shipped import shipped_weights
from fl_ppseg.setr.weights import load_weights, save_weights
from fl_ppseg.system.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_weights_from_scratch_follow_the_seed_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = tiny().state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    again = tiny().state_dict()
    other = build_setr(ModelConfig.model_validate(TINY), 19, IMAGE_SIZE, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first[EMBEDDING_TENSORS[0]], other[EMBEDDING_TENSORS[0]])


@pytest.mark.parametrize("form", [None, "pixel-magnitudes"])
def test_a_config_that_names_weights_gets_them(form: str | None, tmp_path: Path) -> None:
    """By default those that come with the package; an architecture by itself has none of them."""
    config = ModelConfig.model_validate({"invariant": form})
    assert config.weights == "shipped"
    state = build_setr(config, 19, (64, 128), seed=0).state_dict()
    shipped = safetensors.torch.load_file(shipped_weights(form))
    assert shipped.keys() == state.keys()
    assert all(torch.equal(state[name], value.float()) for name, value in shipped.items())
    bare = build_architecture(config, 19, (64, 128)).state_dict()
    assert not torch.equal(bare[EMBEDDING_TENSORS[0]], state[EMBEDDING_TENSORS[0]])
    own = ModelConfig.model_validate({"invariant": form, "weights": str(tmp_path / "none")})
    with pytest.raises(InputError, match="cannot read weights"):
        build_setr(own, 19, (64, 128), seed=0)


def test_weights_survive_a_file(tmp_path: Path) -> None:
    model = tiny(norm="batch")
    other = build_setr(ModelConfig.model_validate(TINY | {"norm": "batch"}), 19, IMAGE_SIZE, seed=1)
    save_weights(model, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_half_precision_file_is_half_the_size_and_rounds_once(tmp_path: Path) -> None:
    model = tiny()
    save_weights(model, tmp_path / "32.safetensors")
    save_weights(model.state_dict(), tmp_path / "16.safetensors", dtype="fp16", grid=model.grid)
    sizes = [(tmp_path / name).stat().st_size for name in ("16.safetensors", "32.safetensors")]
    assert sizes[0] < 0.6 * sizes[1]
    other = tiny()
    load_weights(other, tmp_path / "16.safetensors")
    for name, tensor in model.state_dict().items():
        rounded = torch.from_numpy(tensor.numpy().astype(np.float16).astype(np.float32))
        assert torch.equal(other.state_dict()[name], rounded), name
        assert other.state_dict()[name].dtype == torch.float32


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(tiny(), path)
    old = path.read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_weights(tiny(num_classes=3), path)
    assert path.read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("size", [(40, 16), (32, 80)])
def test_position_embedding_of_another_grid_is_resampled(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    model = tiny()
    other = tiny(size=size)  # (40, 16) has the same number of tokens on another grid
    save_weights(model, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    model.backbone.set_input_size(size)
    torch.testing.assert_close(other.backbone.pos_embed, model.backbone.pos_embed)


def test_another_number_of_classes_starts_the_classifiers_afresh(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny(num_auxiliary=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    save_weights(model, tmp_path / "w.safetensors")
    other = tiny(num_auxiliary=1, num_classes=11)
    fresh = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with caplog.at_level("INFO"):
        load_weights(other, tmp_path / "w.safetensors")
    assert "classifiers start from scratch" in caplog.text
    for name, tensor in other.state_dict().items():
        source = fresh if ".classifier." in name else model.state_dict()
        assert torch.equal(tensor, source[name]), name


def drop_one(state: dict[str, Tensor]) -> None:
    del state["norms.0.bias"]


def add_one(state: dict[str, Tensor]) -> None:
    state["backbone.extra"] = torch.zeros(1)


def reshape_one(state: dict[str, Tensor]) -> None:
    state["backbone.blocks.0.attn.qkv.bias"] = torch.zeros(5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_one, "lacks norms.0.bias"),
        (add_one, "has an unknown backbone.extra"),
        (reshape_one, r"backbone.blocks.0.attn.qkv.bias is \(5,\), not \(96,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, spoil: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    model = tiny()
    state = model.state_dict()
    spoil(state)
    save_weights(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=message) as raised:
        load_weights(tiny(), tmp_path / "w.safetensors")
    assert "\n" not in str(raised.value)


def test_unknown_grid_with_other_tokens_is_refused(tmp_path: Path) -> None:
    save_weights(tiny().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=POSITION_TENSOR):
        load_weights(tiny(size=(32, 80)), tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [None, b"", b"no tensors here"])
def test_unreadable_files_are_one_line_errors(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read weights") as raised:
        load_weights(tiny(), path)
    assert "\n" not in str(raised.value)


# timm's own weights.

DEIT = "deit_tiny_patch16_224"  # ImageNet mean and deviation
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(batch: Tensor) -> Tensor:
    """Our input in [-1, 1] -> the input that DeiT was trained on."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return ((batch + 1) / 2 - mean) / std


def published_deit(seed: int) -> VisionTransformer:
    """A timm model in the part of published weights: 224x224, 1000 classes, class token."""
    torch.manual_seed(seed)
    model = timm.create_model(DEIT).eval()
    nn.init.normal_(model.norm.weight)
    nn.init.normal_(model.norm.bias)
    return model


def test_timm_file_gives_timms_features_on_its_own_normalisation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = (32, 48)
    published = published_deit(5)
    safetensors.torch.save_file(published.state_dict(), tmp_path / "timm.safetensors")
    config = ModelConfig(backbone=DEIT, patch_size=8, weights=None)
    model = build_setr(config, 19, size, seed=0).eval()
    with caplog.at_level("INFO"):
        load_weights(model, tmp_path / "timm.safetensors")
    assert "start from scratch" in caplog.text

    reference = timm.create_model(DEIT, img_size=size, patch_size=8, num_classes=0).eval()
    resampled = checkpoint_filter_fn(published.state_dict(), reference)
    reference.load_state_dict({k: v for k, v in resampled.items() if not k.startswith("head")})
    theirs = reference.forward_features(normalised(images(size)))[:, 1:]
    ours = model.norms[-1](model.features(images(size))[-1]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def bilinear(position: Tensor, grid: tuple[int, int]) -> Tensor:
    """(1, 196, D) of 14x14 patches -> another grid, as mmsegmentation's `resize_pos_embed`."""
    maps = position.reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(maps, size=grid, mode="bilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("source", ["file", "pretrained"])
@pytest.mark.parametrize("decoder", ["pup", "mla"])
def test_positions_are_interpolated_as_mmsegmentation_does_where_it_is_asked_for(
    decoder: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = published_deit(9)
    for place in ("hf", "url"):
        name = f"timm.models._builder.load_state_dict_from_{place}"
        monkeypatch.setattr(name, lambda *_, **__: published.state_dict())
    safetensors.torch.save_file(published.state_dict(), tmp_path / "timm.safetensors")
    found = {}
    for positions in ("bilinear", "bicubic"):
        config = ModelConfig(
            backbone=DEIT, decoder=decoder, weights=None, positions=positions,
            pretrained=source == "pretrained",
        )  # fmt: skip
        model = build_setr(config, 19, (96, 64), seed=0)
        if source == "file":
            load_weights(model, tmp_path / "timm.safetensors")
        found[positions] = model.backbone.pos_embed.detach()
    wanted = bilinear(published.pos_embed.detach()[:, 1:], (6, 4))
    if decoder == "pup":  # the class token's own stays
        wanted = torch.cat([published.pos_embed.detach()[:, :1], wanted], dim=1)
    torch.testing.assert_close(found["bilinear"], wanted)
    assert (found["bicubic"] - wanted).abs().max() > 1e-3


def test_pretrained_weights_are_folded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    published = published_deit(6)
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_hf", lambda *_, **__: published.state_dict()
    )
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_url", lambda *_, **__: published.state_dict()
    )
    config = ModelConfig(backbone=DEIT, patch_size=None, pretrained=True, weights=None)
    model = build_setr(config, 19, (224, 224), seed=0).eval()
    theirs = published.forward_features(normalised(images((224, 224), 1)))[:, 1:]
    ours = model.norms[-1](model.features(images((224, 224), 1))[-1]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_our_own_normalisation_folds_to_the_same_bits() -> None:
    weight, bias = torch.randn(4, 3, 8, 8), torch.randn(4)
    folded = fold_normalisation(weight, bias, (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(folded[0], weight)
    assert torch.equal(folded[1], bias)


@pytest.mark.parametrize("error", [URLError("no route"), FileNotFoundError("not in the cache")])
def test_no_network_names_both_ways_out(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def offline(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", offline)
    with pytest.raises(InputError, match=r"model\.weights.*pretrained: false") as raised:
        create_backbone("vit_tiny_patch16_224", (32, 80), pretrained=True)
    assert "\n" not in str(raised.value)
