"""SETR against timm (encoder, resampling) and mmsegmentation (decoders, worked by hand)."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from fl_ppseg.config import ModelConfig
from fl_ppseg.errors import InputError
from fl_ppseg.setr.backbone import create_backbone, fold_normalisation
from fl_ppseg.setr.model import SETR, build_setr, scaled_taps
from fl_ppseg.setr.names import BACKBONE_PREFIX, EMBEDDING_TENSORS, POSITION_TENSOR
from fl_ppseg.setr.weights import load_weights, save_weights

IMAGE_SIZE = (16, 40)
TINY: dict[str, object] = {
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 4,
    "num_heads": 2,
    "decoder_channels": 16,
    "num_convs": None,
    "weights": None,
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors on a busy machine: more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(*, num_classes: int = 19, size: tuple[int, int] = IMAGE_SIZE, **fields: object) -> SETR:
    config = ModelConfig.model_validate(TINY | fields)
    return build_setr(config, num_classes, size, seed=0).eval()


def images(size: tuple[int, int] = IMAGE_SIZE, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(batch, 3, *size, generator=generator) * 2 - 1


def shapes(model: SETR) -> list[tuple[int, ...]]:
    """Shapes of everything but the encoder, sorted."""
    return sorted(
        tuple(tensor.shape)
        for name, tensor in model.named_parameters()
        if not name.startswith(BACKBONE_PREFIX)
    )


def num_decoder_parameters(model: SETR) -> int:
    return sum(int(np.prod(shape)) for shape in shapes(model))


def vit_large(**fields: object) -> SETR:
    """ViT-L's width and depth without its memory: parameters on the meta device."""
    sizes = {"patch_size": 16, "embed_dim": 1024, "depth": 24, "num_heads": 16, "norm": "batch"}
    others = {"decoder_channels": 256, "num_convs": None, "weights": None}
    config = ModelConfig.model_validate(sizes | others | fields)
    with torch.device("meta"):
        return build_setr(config, 19, (768, 768), seed=0)


# Parameter shapes of mmsegmentation's configs/_base_/models/setr_*.py. ConvModule with a norm has
# no bias; a norm has weight and bias; conv_seg has both. norm_cfg SyncBN, 19 classes.


def test_naive_has_the_shapes_of_setr_naive() -> None:
    # SETRUPHead(in_channels=1024, channels=256, num_convs=1, up_scale=4, kernel_size=1), 4 times:
    #   LN 2*1024 + conv 1024*256*1*1 + BN 2*256 + conv_seg 256*19 + 19 = 269 587
    head = [(1024,), (1024,), (256, 1024, 1, 1), (256,), (256,), (19, 256, 1, 1), (19,)]
    model = vit_large(decoder="naive", num_auxiliary=3)
    assert shapes(model) == sorted(head * 4)
    assert num_decoder_parameters(model) == 4 * 269_587
    assert model.taps == (9, 14, 19, 23)


def test_pup_has_the_shapes_of_setr_pup() -> None:
    # main, num_convs=4, up_scale=2, kernel_size=3:
    #   LN 2048 + 1024*256*9 + 3 * 256*256*9 + 4 * BN 512 + conv_seg 4883 = 4 137 747
    # auxiliary, num_convs=1, up_scale=4, kernel_size=3, 3 times:
    #   LN 2048 + 1024*256*9 + BN 512 + conv_seg 4883 = 2 366 739
    ends = [(1024,), (1024,), (256, 1024, 3, 3), (256,), (256,), (19, 256, 1, 1), (19,)]
    between = [(256, 256, 3, 3), (256,), (256,)]
    model = vit_large(decoder="pup", num_auxiliary=3)
    assert shapes(model) == sorted(ends * 4 + between * 3)
    assert num_decoder_parameters(model) == 4_137_747 + 3 * 2_366_739
    assert model.taps == (9, 14, 19, 23)


def test_mla_has_the_shapes_of_setr_mla() -> None:
    # MLANeck, 4 times: LN 2048 + 1024*256 + BN 512 + 256*256*9 + BN 512 = 855 040
    # SETRMLAHead, 4 times: 256*128*9 + BN 256 + 128*128*9 + BN 256 = 442 880
    #   and conv_seg 512*19 + 19 = 9 747
    # FCNHead(num_convs=0), 4 times: 256*19 + 19 = 4 883
    neck = [(1024,), (1024,), (256, 1024, 1, 1), (256, 256, 3, 3)] + [(256,)] * 4
    head = [(128, 256, 3, 3), (128, 128, 3, 3)] + [(128,)] * 4
    auxiliary = [(19, 256, 1, 1), (19,)]
    model = vit_large(decoder="mla", num_auxiliary=4)
    assert shapes(model) == sorted((neck + head + auxiliary) * 4 + [(19, 512, 1, 1), (19,)])
    assert num_decoder_parameters(model) == 4 * (855_040 + 442_880 + 4_883) + 9_747
    assert model.taps == (5, 11, 17, 23)


def test_taps_of_vit_base_are_those_of_published_configs() -> None:
    # mmsegmentation, setr_vit-b-mla out_indices (2, 5, 8, 11); pup on 12 layers (4, 7, 9, 11)
    assert scaled_taps("mla", 12) == (2, 5, 8, 11)
    assert scaled_taps("pup", 12) == (4, 7, 9, 11)


# Encoder against timm.


@pytest.mark.parametrize("decoder", ["naive", "pup", "mla"])
def test_features_are_timms_on_a_rectangle(decoder: str) -> None:
    model = tiny(decoder=decoder, num_auxiliary=1)
    reference = VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=8,
        embed_dim=32,
        depth=4,
        num_heads=2,
        class_token=False,
        global_pool="",
        num_classes=0,
    ).eval()
    reference.load_state_dict(model.backbone.state_dict(), strict=False)
    reference.norm.load_state_dict(model.norms[-1].state_dict())
    taken = reference.get_intermediate_layers(images(), n=list(model.taps), reshape=True)
    assert len(taken) == len(model.taps)
    for ours, theirs in zip(model.features(images()), taken, strict=True):
        assert ours.shape == (2, 32, 2, 5)
        assert torch.equal(ours, theirs)
    last = model.norms[-1](model.features(images())[-1]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(last, reference.forward_features(images()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_prefix_tokens_of_timm_models_are_dropped(name: str) -> None:
    size = (32, 80)
    config = ModelConfig(backbone=name, patch_size=None, weights=None)
    model = build_setr(config, 19, size, seed=1).eval()
    reference = timm.create_model(name, img_size=size, num_classes=0).eval()
    reference.load_state_dict(model.backbone.state_dict(), strict=False)
    reference.norm.load_state_dict(model.norms[-1].state_dict())
    prefix = reference.num_prefix_tokens
    assert prefix in (1, 2)
    theirs = reference.forward_features(images(size))[:, prefix:]
    ours = model.norms[-1](model.features(images(size))[-1]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert model.patch_size == 16
    assert model.grid == (2, 5)


def test_patch_size_overrides_timms() -> None:
    backbone = create_backbone("vit_tiny_patch16_224", (16, 40), patch_size=8)
    assert backbone.patch_embed.grid_size == (2, 5)
    assert backbone.patch_embed.proj.weight.shape == (192, 3, 8, 8)


def test_patch_embedding_can_be_replaced_by_any_module() -> None:
    class Sorted(nn.Module):
        """E applied to the sorted values of each block: another map (B, 3, H, W) -> (B, N, D)."""

        def __init__(self, projection: nn.Conv2d) -> None:
            super().__init__()
            self.proj = projection

        def forward(self, batch: Tensor) -> Tensor:
            blocks = F.unfold(batch, 8, stride=8).sort(dim=1).values.transpose(1, 2)
            return F.linear(blocks, self.proj.weight.flatten(1), self.proj.bias)

    model = tiny()
    names = list(model.state_dict())
    model.backbone.patch_embed = Sorted(model.backbone.patch_embed.proj)
    assert list(model.state_dict()) == names
    assert set(EMBEDDING_TENSORS) <= set(names)
    shuffled = images().unflatten(2, (2, 8)).flip(3).flatten(2, 3)  # rows inside each block
    torch.testing.assert_close(model(shuffled).main, model(images()).main)
    assert model.patch_size == 8


# Decoders.


def upsampled_before_classifier(model: SETR) -> Tensor:
    """The PUP head as mmsegmentation orders it: upsample features, then classify."""
    x = model.norms[-1](model.features(images())[-1])
    for name, stage in model.decoder.stages.named_children():
        if name.startswith("conv"):
            x = F.interpolate(stage(x), scale_factor=2, mode="bilinear", align_corners=False)
    return model.decoder.classifier.conv(x)


def test_scores_equal_those_of_upsampled_features() -> None:
    model = tiny(decoder="pup", num_convs=2)
    scores = model(images()).main
    assert scores.shape == (2, 19, 8, 20)
    torch.testing.assert_close(scores, upsampled_before_classifier(model), rtol=1e-4, atol=1e-6)


def test_mla_sums_levels_from_the_deepest() -> None:
    neck = tiny(decoder="mla").neck
    levels = tuple(torch.full((1, 32, 2, 5), float(level)) for level in range(4))
    neck.laterals = nn.ModuleList(nn.Identity() for _ in range(4))
    neck.outputs = nn.ModuleList(nn.Identity() for _ in range(4))
    sums = [level.unique().tolist() for level in neck(levels)]
    assert sums == [[3.0], [5.0], [6.0], [6.0]]  # 3, 3+2, 3+2+1, 3+2+1+0


@pytest.mark.parametrize(
    ("decoder", "num_auxiliary", "main", "auxiliary"),
    [
        ("naive", 2, (8, 20), (8, 20)),
        ("pup", 1, (32, 80), (8, 20)),
        ("mla", 4, (8, 20), (2, 5)),
        ("pup", 0, (32, 80), ()),
    ],
)
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_every_parameter_learns(
    decoder: str, num_auxiliary: int, main: tuple[int, ...], auxiliary: tuple[int, ...], norm: str
) -> None:
    model = tiny(decoder=decoder, num_auxiliary=num_auxiliary, norm=norm, depth=6).train()
    logits = model(images())
    assert logits.main.shape == (2, 19, *main)
    assert [tuple(each.shape) for each in logits.auxiliary] == [
        (2, 19, *auxiliary) for _ in range(num_auxiliary)
    ]
    total = sum(
        (scores.square().mean() for scores in logits.auxiliary), logits.main.square().mean()
    )
    total.backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(["naive", "mla"]))
def test_any_grid_of_patches_works(height: int, width: int, decoder: str) -> None:
    size = (8 * height, 8 * width)
    model = tiny(size=size, decoder=decoder)
    assert model(images(size)).main.shape == (2, 19, 4 * height, 4 * width)


# Weights.


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


# Settings that contradict themselves.


@pytest.mark.parametrize(
    ("fields", "size", "message"),
    [
        ({"backbone": "vit_bse_patch16_384"}, (32, 64), "vit_base_patch16_384"),
        ({"backbone": "vit_base_patch16_384.nope"}, (32, 64), "Invalid pretrained tag"),
        ({"backbone": "resnet18"}, (32, 64), "no plain vision transformer"),
        ({"backbone": "vit_tiny_r_s16_p8_224"}, (64, 64), "no plain vision transformer"),
        ({}, (16, 36), "16x36 pixels.*8x8 patches"),
        ({}, (4, 16), "4x16 pixels.*8x8 patches"),
        ({"embed_dim": 33}, (16, 16), "33 is no multiple of model.num_heads 2; try 32"),
        ({"depth": None}, (16, 16), "needs patch_size, embed_dim, depth and num_heads"),
        ({"pretrained": True}, (16, 16), "name a timm ViT, or set model.weights"),
        ({"num_auxiliary": 4, "decoder": "pup"}, (16, 16), "at most 3"),
        ({"num_auxiliary": 5, "decoder": "mla"}, (16, 16), "at most 4"),
        ({"depth": 3, "decoder": "mla"}, (16, 16), "3 layers has no 4 different ones"),
    ],
)
def test_bad_settings_are_one_line_errors(
    fields: dict[str, object], size: tuple[int, int], message: str
) -> None:
    with pytest.raises(InputError, match=message) as raised:
        tiny(size=size, **fields)
    assert "\n" not in str(raised.value)


def test_names_load_no_torch() -> None:
    program = "import sys, fl_ppseg.setr.names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
