"""SETR against timm (encoder, resampling) and mmsegmentation (decoders, worked by hand)."""

import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_setr import IMAGE_SIZE, images, tiny
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.setr.backbone import create_backbone
from fl_ppseg.setr.build import build_setr
from fl_ppseg.setr.model import SETR, scaled_taps
from fl_ppseg.setr.names import BACKBONE_PREFIX, EMBEDDING_TENSORS
from fl_ppseg.system.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


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
    # auxiliary as in setr_vit-l_pup_8xb1-80k_cityscapes-768x768.py, num_convs=2, up_scale=4,
    # kernel_size=3, 3 times:
    #   LN 2048 + 1024*256*9 + 256*256*9 + 2 * BN 512 + conv_seg 4883 = 2 957 075
    ends = [(1024,), (1024,), (256, 1024, 3, 3), (256,), (256,), (19, 256, 1, 1), (19,)]
    between = [(256, 256, 3, 3), (256,), (256,)]
    model = vit_large(decoder="pup", num_auxiliary=3)
    assert shapes(model) == sorted(ends * 4 + between * (3 + 3))
    assert num_decoder_parameters(model) == 4_137_747 + 3 * 2_957_075
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


@pytest.mark.parametrize(
    ("decoder", "chosen", "has_token"),
    [("mla", None, False), ("pup", None, True), ("naive", None, True), ("mla", True, True),
     ("pup", False, False)],
)  # fmt: skip
def test_the_encoder_sees_a_class_token_where_mmsegmentations_does(
    decoder: str, chosen: bool | None, has_token: bool
) -> None:
    """`with_cls_token=False`: positions are added, the token is dropped, the encoder follows."""
    size, name = (32, 80), "vit_tiny_patch16_224"
    config = ModelConfig(backbone=name, decoder=decoder, class_token=chosen, weights=None)
    model = build_setr(config, 19, size, seed=1).eval()
    assert (model.backbone.cls_token is not None) == has_token
    assert model.backbone.pos_embed.shape[1] == 2 * 5 + has_token
    reference = timm.create_model(name, img_size=size, num_classes=0).eval()
    state = model.backbone.state_dict()
    if not has_token:
        state["cls_token"] = torch.randn(1, 1, 192)
        state["pos_embed"] = torch.cat([torch.randn(1, 1, 192), state["pos_embed"]], dim=1)
    reference.load_state_dict(state, strict=False)
    tokens = reference._pos_embed(reference.patch_embed(images(size)))
    tokens = tokens if has_token else tokens[:, 1:]
    for block in reference.blocks:
        tokens = block(tokens)
    theirs = tokens[:, 1:] if has_token else tokens
    ours = model.features(images(size))[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


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
        ("pup", 1, (32, 80), (32, 80)),
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


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(["naive", "mla"]))
def test_any_grid_of_patches_works(height: int, width: int, decoder: str) -> None:
    size = (8 * height, 8 * width)
    model = tiny(size=size, decoder=decoder)
    assert model(images(size)).main.shape == (2, 19, 4 * height, 4 * width)


# Settings that contradict themselves.


@pytest.mark.parametrize(
    ("fields", "size", "message"),
    [
        ({"backbone": "vit_bse_patch16_384"}, (32, 64), "vit_base_patch16_384"),
        ({"backbone": "vit_base_patch16_384.nope"}, (32, 64), "Invalid pretrained tag"),
        ({"backbone": "resnet18"}, (32, 64), "not a plain vision transformer"),
        ({"backbone": "vit_tiny_r_s16_p8_224"}, (64, 64), "not a plain vision transformer"),
        ({}, (16, 36), "16x36 pixels.*8x8 patches"),
        ({}, (4, 16), "4x16 pixels.*8x8 patches"),
        ({"embed_dim": 33}, (16, 16), "33 is not a multiple of model.num_heads 2; try 32"),
        ({"depth": None}, (16, 16), "needs patch_size, embed_dim, depth and num_heads"),
        ({"pretrained": True}, (16, 16), "use a timm ViT, or set model.weights"),
        ({"num_auxiliary": 4, "decoder": "pup"}, (16, 16), "at most 3"),
        ({"num_auxiliary": 5, "decoder": "mla"}, (16, 16), "at most 4"),
        ({"num_auxiliary": 1, "auxiliary_convs": 16}, (16, 16), "auxiliary_convs 16 enlarges 2x2"),
        ({"depth": 3, "decoder": "mla"}, (16, 16), "reads 4 different layers"),
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
