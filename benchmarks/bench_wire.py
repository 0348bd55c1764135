"""What an update and the weights of SETR on ViT-B and ViT-L take on the wire, by codec.

    python benchmarks/bench_wire.py [--ranks 16,64] [--repeats 1]

Nothing is trained and no model is built: shapes come from torch's meta device, and codes have the
same length whatever the change. It is drawn: of each matrix of low rank beside noise, as updates of
a few steps of AdamW are (16 directions hold 0.8 of it). Of each shape one tensor is timed, and
counts as often as the model has it; time is that of one core, and of `UpdateCodec` alone: no
compression of messages, hash or network. MB are 10^6 bytes of a client and round.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from fl_ppseg.codecs.low_rank import LowRank
from fl_ppseg.codecs.tensors import BFloat16, Int8, TensorCodec, TopK, num_bytes
from fl_ppseg.codecs.update import UpdateCodec
from fl_ppseg.config.sections import ModelConfig, TrainingConfig
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.setr.sizes import num_elements, tensor_shapes
from fl_ppseg.system.arrays import Arrays

Shapes = Mapping[str, tuple[int, ...]]
NUM_CLASSES, IMAGE_SIZE = 19, (512, 1024)
MODELS: Final[dict[str, dict[str, str]]] = {
    "ViT-B, PUP": {"backbone": "vit_base_patch16_384", "decoder": "pup"},
    "ViT-L, PUP": {"backbone": "vit_large_patch16_384", "decoder": "pup"},
}
DIRECTIONS, MOVED, NOISE = 16, 0.01, 0.005
"""Of a drawn change: its rank, and the deviations of what is of that rank and of what is not."""


class Row(NamedTuple):
    """A codec of a model."""

    name: str
    num_bytes: int
    encoding: float
    """Seconds."""
    decoding: float


def shapes_of(model: Mapping[str, str]) -> Shapes:
    return tensor_shapes(ModelConfig.model_validate(model), NUM_CLASSES, IMAGE_SIZE)


def codecs(ranks: Sequence[int]) -> dict[str, UpdateCodec]:
    density = TrainingConfig().codec_density
    tensors: dict[str, TensorCodec | None] = {
        "fp32": None,
        "bf16": BFloat16(),
        "int8": Int8(),
        f"top-k, density {density:g}": TopK(density),
        **{f"low-rank, rank {rank}": LowRank(rank) for rank in ranks},
    }
    return {name: UpdateCodec(tensor) for name, tensor in tensors.items()}


def change_of(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """A drawn change, float32."""
    made = generator.standard_normal(shape, np.float32) * NOISE
    if len(shape) > 1:
        rows, rank = shape[0], DIRECTIONS
        left = generator.standard_normal((rows, rank), np.float32)
        right = generator.standard_normal((made.size // rows, rank), np.float32)
        made += (left @ right.T).reshape(shape) * (MOVED / rank**0.5)
    return np.asarray(made, np.float32)


def measured(name: str, codec: UpdateCodec, shapes: Shapes, repeats: int) -> Row:
    """Bytes of a whole update, and seconds to code and decode it."""
    zeros: dict[str, np.ndarray] = {
        k: np.broadcast_to(np.float32(0), shape) for k, shape in shapes.items()
    }
    encoding = decoding = 0.0
    generator = np.random.default_rng(0)
    for shape, number in Counter(shapes.values()).items():
        start: Arrays = {"w": np.zeros(shape, np.float32)}
        after: Arrays = {"w": change_of(shape, generator)}
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            parts, _ = codec.pack(after, start, {})
            packed = time.perf_counter()
            codec.unpack(parts, start)
            times.append((packed - began, time.perf_counter() - packed))
        encoding += number * min(each[0] for each in times)
        decoding += number * min(each[1] for each in times)
    return Row(name, num_bytes(codec.layout(zeros).values()), encoding, decoding)


def lines(title: str, shapes: Shapes, ranks: Sequence[int], repeats: int) -> Iterator[str]:
    whole = 4 * num_elements(shapes)
    frozen = num_elements({name: shapes[name] for name in EMBEDDING_TENSORS})
    yield (
        f"{title}: {num_elements(shapes) / 1e6:.1f} million weights in {len(shapes)} tensors. The "
        f"{frozen / 1e6:.2f} million of the embedding do not travel up in frozen and private arms, "
        "nor down in a code; before round 2 coded weights take 64 bytes."
    )
    yield ""
    yield "| codec | direction | MB a round | of fp32's | s to code | s to decode |"
    yield "|---|---|---|---|---|---|"
    for name, codec in codecs(ranks).items():
        row = measured(name, codec, shapes, repeats)
        ways = "up, down" if name in ("fp32", "int8") else "up"
        times = "| - | -" if codec.is_exact else f"| {row.encoding:.1f} | {row.decoding:.1f}"
        size = f"{row.num_bytes / 1e6:.1f} | {row.num_bytes / whole:.4f}"
        yield f"| {name} | {ways} | {size} {times} |"
    yield ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--ranks", default="16,64", help="of low-rank, with commas")
    parser.add_argument("--repeats", type=int, default=1, help="the fastest counts")
    options = parser.parse_args(argv)
    ranks = [int(rank) for rank in options.ranks.split(",")]
    for title, model in MODELS.items():
        for line in lines(title, shapes_of(model), ranks, options.repeats):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
