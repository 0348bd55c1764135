"""Cost of one training step of SETR on one core, as ratios to a reference measured beside it.

    python benchmarks/bench_setr.py [--batch 8] [--height 64] [--width 128] [--repeats 5]

Every setting is timed in turn with the reference (forward, mean of the scores, backward), so that
a busy machine slows both; the ratio is the median over the repeats.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.setr.build import build_setr
from fl_ppseg.setr.decoders import Classifier, group_norm, upsample
from fl_ppseg.setr.model import SETR

REFERENCE: dict[str, Any] = {
    "embed_dim": 192,
    "depth": 6,
    "num_heads": 3,
    "decoder": "naive",
    "decoder_channels": 64,
    "up_scale": 2,
}

DECODERS: dict[str, dict[str, Any]] = {
    "naive 64, x1": {"decoder": "naive", "decoder_channels": 64, "up_scale": 1},
    "naive 64, x2": {"decoder": "naive", "decoder_channels": 64, "up_scale": 2},
    "naive 128, x4": {"decoder": "naive", "decoder_channels": 128, "up_scale": 4},
    "naive 256, x4": {"decoder": "naive", "decoder_channels": 256, "up_scale": 4},
    "naive 64, x8": {"decoder": "naive", "decoder_channels": 64, "up_scale": 8},
    "pup 64, 1 conv": {"decoder": "pup", "decoder_channels": 64, "num_convs": 1},
    "pup 64, 2 convs": {"decoder": "pup", "decoder_channels": 64, "num_convs": 2},
    "pup 96, 2 convs": {"decoder": "pup", "decoder_channels": 96, "num_convs": 2},
    "pup 128, 2 convs": {"decoder": "pup", "decoder_channels": 128, "num_convs": 2},
    "pup 64, 3 convs": {"decoder": "pup", "decoder_channels": 64, "num_convs": 3},
    "pup 128, 3 convs": {"decoder": "pup", "decoder_channels": 128, "num_convs": 3},
    "mla 64": {"decoder": "mla", "decoder_channels": 64},
    "mla 128": {"decoder": "mla", "decoder_channels": 128},
}

BACKBONES: dict[str, dict[str, Any]] = {
    f"vit {width} x {depth}, {heads} heads": {
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
    }
    for width, heads in ((128, 2), (128, 4), (160, 4), (192, 3), (192, 6))
    for depth in (4, 6, 8)
}

Step = Callable[[], None]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.rand(options.batch, 3, options.height, options.width) * 2 - 1
    reference = model_step({}, images)
    print(f"reference: {REFERENCE}, batch {tuple(images.shape)}, one thread")
    for title, settings in (("decoder", DECODERS), ("backbone", BACKBONES)):
        print(f"\n{title:26} {'scores':>8} {'params/M':>9} {'ms/step':>8} {'ratio':>6}")
        for name, changes in settings.items():
            milliseconds, ratio = compare(model_step(changes, images), reference, options.repeats)
            print(f"{name:26} {describe(changes, images)} {milliseconds:8.1f} {ratio:6.2f}")
    print(f"\n{'choice':44} {'ms':>8} {'ratio':>6}")
    for name, step, against in choices(images):
        milliseconds, ratio = compare(step, against, options.repeats)
        print(f"{name:44} {milliseconds:8.1f} {ratio:6.2f}")
    return 0


def build(changes: dict[str, Any], images: Tensor) -> SETR:
    config = ModelConfig.model_validate({"patch_size": 8, "weights": None} | REFERENCE | changes)
    return build_setr(config, 19, (images.shape[2], images.shape[3]), seed=0)


def model_step(changes: dict[str, Any], images: Tensor) -> Step:
    # A decoder entry starts from mmsegmentation's integers, not from the reference's.
    defaults = {"up_scale": None, "num_convs": None} if "decoder" in changes else {}
    model = build(defaults | changes, images)
    return lambda: backward(model, model(images).main)


def describe(changes: dict[str, Any], images: Tensor) -> str:
    defaults = {"up_scale": None, "num_convs": None} if "decoder" in changes else {}
    model = build(defaults | changes, images)
    with torch.no_grad():
        height, width = model(images[:1]).main.shape[2:]
    return f"{f'{height}x{width}':>8} {sum(p.numel() for p in model.parameters()) / 1e6:9.2f}"


def backward(module: nn.Module, result: Tensor) -> None:
    module.zero_grad()
    torch.autograd.backward(result.mean())


def compare(step: Step, reference: Step, repeats: int) -> tuple[float, float]:
    """Milliseconds of a step (the fastest) and the median of its ratios to the reference."""
    step()
    reference()
    pairs = [(timed(step), timed(reference)) for _ in range(repeats)]
    return 1e3 * min(ours for ours, _ in pairs), statistics.median(a / b for a, b in pairs)


def timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def choices(images: Tensor) -> list[tuple[str, Step, Step]]:
    """(name, what, against what): the alternatives behind the choices of fl_ppseg.setr."""
    plain, fused = build({}, images), build({}, images)
    for block in plain.backbone.blocks:
        cast(Any, block).attn.fused_attn = False
    grid = torch.randn(len(images), 96, 16, 32)
    tokens_last = grid.contiguous(memory_format=torch.channels_last)
    conv, conv_1x1 = nn.Conv2d(96, 96, 3, padding=1), nn.Conv2d(96, 96, 1)
    cheap = Classifier(96, 19, up_scale=2, dropout=0.0)

    def on(module: nn.Module, features: Tensor) -> Step:
        features = features.clone(memory_format=torch.preserve_format).requires_grad_()
        return lambda: backward(module, module(features))

    def paper_order() -> nn.Module:
        return nn.Sequential(upsample(2), nn.Conv2d(96, 19, 1))

    def bfloat16() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            scores = fused(images).main
        backward(fused, scores.float())

    def whole(model: SETR) -> Step:
        return lambda: backward(model, model(images).main)

    return [
        ("fused attention : timm's plain attention", whole(fused), whole(plain)),
        ("bfloat16 autocast : float32", bfloat16, whole(fused)),
        ("encoder alone : SETR", encoder_step(images), whole(fused)),
        ("channels-last : NCHW, conv 3x3", on(conv, tokens_last), on(conv, grid)),
        (
            "channels-last : NCHW, upsampling x2",
            on(upsample(2), tokens_last),
            on(upsample(2), grid),
        ),
        ("conv 3x3 : conv 1x1", on(conv, tokens_last), on(conv_1x1, tokens_last)),
        ("GroupNorm(6) : conv 3x3", on(group_norm(96), tokens_last), on(conv, tokens_last)),
        (
            "GroupNorm(32) : GroupNorm(6)",
            on(nn.GroupNorm(32, 96), tokens_last),
            on(group_norm(96), tokens_last),
        ),
        (
            "BatchNorm : GroupNorm(6)",
            on(nn.BatchNorm2d(96), tokens_last),
            on(group_norm(96), tokens_last),
        ),
        (
            "classify, upsample x2 : upsample, classify",
            on(cheap, tokens_last),
            on(paper_order(), tokens_last),
        ),
    ]


def encoder_step(images: Tensor) -> Step:
    encoder = VisionTransformer(
        img_size=(images.shape[2], images.shape[3]),
        patch_size=8,
        embed_dim=REFERENCE["embed_dim"],
        depth=REFERENCE["depth"],
        num_heads=REFERENCE["num_heads"],
        class_token=False,
        global_pool="",
        num_classes=0,
    )
    return lambda: backward(encoder, encoder(images))


if __name__ == "__main__":
    raise SystemExit(main())
