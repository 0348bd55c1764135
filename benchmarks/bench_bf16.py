"""What bfloat16 makes of a training step on a CPU that computes in it, and what takes its time.

    python benchmarks/bench_bf16.py [--only NAME] [--repeats 5]

Processor seconds of a step on one thread, the fastest of some: in fp32, in bfloat16 with torch's
fused attention, and with attention as two products of matrices (`SETR.set_fused_attention`); and
the operations that take most of each. Random images and labels.
"""

import argparse
import time
from typing import Any, Final

import torch
from torch.profiler import ProfilerActivity, profile

from fl_ppseg.config.loading import validate
from fl_ppseg.config.sections import Config
from fl_ppseg.learning.losses import pixel_loss
from fl_ppseg.setr.build import build_architecture

NUM_CLASSES: Final = 19
VIT_B: Final = {"backbone": "vit_base_patch16_224", "decoder": "naive"}
CASES: Final[dict[str, tuple[dict[str, Any], tuple[int, int], int]]] = {
    "default, 64x128, batch 8": ({}, (64, 128), 8),
    "ViT-B naive, 256x512, batch 1": (VIT_B, (256, 512), 1),
}
"""Name -> section model, image size, batch size."""
WAYS: Final = {
    "fp32": (False, True),
    "bfloat16, fused attention": (True, True),
    "bfloat16, products": (True, False),
}
"""Name -> (in bfloat16, with fused attention)."""
NUM_OPERATIONS: Final = 4


def main() -> None:
    """Print a line of each case and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", default="")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    able = [name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)]
    print(f"this processor computes in bfloat16 by: {', '.join(able) or 'nothing'}")
    for case in (name for name in CASES if options.only in name):
        print(f"\n{case:40}{'ms a step':>10}{'faster':>8}   most of it")
        reference = 0.0
        for way in WAYS:
            seconds, operations = measured(case, way, options.repeats)
            reference = reference or seconds
            print(f"{way:40}{1e3 * seconds:10.1f}{reference / seconds:8.2f}   {operations}")


def measured(case: str, way: str, repeats: int) -> tuple[float, str]:
    """Seconds of a step, and the operations that take most of it."""
    section, size, batch_size = CASES[case]
    in_bf16, is_fused = WAYS[way]
    values = {"model": section | {"weights": None}, "data": {"image_size": size}}
    config = validate(Config, values, case)
    torch.manual_seed(0)
    model = build_architecture(config.model, NUM_CLASSES, size).train()
    model.set_fused_attention(is_fused)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    images = torch.randn(batch_size, 3, *size)
    labels = torch.randint(0, NUM_CLASSES, (batch_size, *size), dtype=torch.uint8)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            loss = pixel_loss(model(images).main, labels, config.training)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()

    step()
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        step()
        seconds.append(time.process_time() - begin)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    found = sorted(recorded.key_averages(), key=lambda each: -each.self_cpu_time_total)
    total = sum(each.self_cpu_time_total for each in found)
    shares = (
        f"{each.key.removeprefix('aten::')[:44]} {each.self_cpu_time_total / total:.0%}"
        for each in found[:NUM_OPERATIONS]
    )
    return min(seconds), ", ".join(shares)


if __name__ == "__main__":
    main()
