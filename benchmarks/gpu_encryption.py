"""Fresh encrypted views of a batch on a device: frames a second, and share of its memory bandwidth.

    python benchmarks/gpu_encryption.py --batch 8 --threads 8
    python benchmarks/gpu_encryption.py --device cpu --batch 2 --height 64 --width 128 --repeats 1

Each view has a key of its own, new in every run, and block scope `per-block`. Streams of keys are
made on the CPU, by as many threads as images at a time; words are sorted and pixels moved on the
device. On the CPU the batch goes by way of numpy, as everywhere.

The share is of what has to travel at least (a frame read and written, its random words read once)
in the bandwidth of copying on the same device, measured in the same run. Before anything is timed
a batch under given keys is compared with numpy's, byte by byte.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fl_ppseg.crypto.ciphers.encryption import encrypt_batch
from fl_ppseg.crypto.keys import SubKey

WORDS_A_PIXEL = {"shuffle": 3, "shuffle-spatial": 1, "shuffle-spatial+negative-positive": 1}
"""Cipher -> random words of 32 bits that it sorts for each pixel."""
COPIED_BYTES = 1 << 28


def best_seconds(action: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Return the shortest of several runs, each until the device has finished."""
    times = []
    for _ in range(repeats + 1):  # the first one warms up
        start = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def fresh_views(images: Tensor, cipher: str, block_size: int, num_threads: int) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 3, H, W) uint8, each image under a key that nobody keeps."""
    keys = [SubKey.generate() for _ in images]
    return encrypt_batch(
        images, keys, cipher, block_size=block_size, scope="per-block", num_threads=num_threads
    )


def equals_numpy(images: Tensor, cipher: str, block_size: int) -> bool:
    """Whether a batch on the device is encrypted to the bits of the same batch in numpy."""
    keys = [SubKey.from_bytes(bytes([number] * 32)) for number in range(len(images))]
    encrypt = partial(encrypt_batch, block_size=block_size, scope="per-block")
    there, here = encrypt(images, keys, cipher), encrypt(images.cpu().numpy(), keys, cipher)
    return np.array_equal(there.cpu().numpy(), here)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", help="e.g. cuda:0 (default: cuda if there is one, else cpu)")
    parser.add_argument("--batch", type=int, default=8, help="images (default 8)")
    parser.add_argument("--height", type=int, default=1024, help="pixels (default 1024)")
    parser.add_argument("--width", type=int, default=2048, help="pixels (default 2048)")
    parser.add_argument("--block-size", type=int, default=16, help="pixels (default 16)")
    parser.add_argument("--threads", type=int, default=1, help="images at a time (default 1)")
    parser.add_argument("--repeats", type=int, default=5, help="to take the best of (default 5)")
    arguments = parser.parse_args()
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, by way of numpy"

    shape = (arguments.batch, 3, arguments.height, arguments.width)
    images = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
    source = torch.zeros(min(COPIED_BYTES, 64 * images.nbytes), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = best_seconds(lambda: target.copy_(source), 5 * arguments.repeats, device)
    bandwidth = 2 * source.nbytes / copy
    print(f"{name}; {arguments.batch} frames of {arguments.height} x {arguments.width}")
    print(f"copying: {bandwidth / 1e9:.1f} GB/s read and written, threads: {arguments.threads}")
    print(f"{'':36}{'bits of numpy':>14}{'frames/s':>10}{'of bandwidth':>14}")
    for cipher, words in WORDS_A_PIXEL.items():
        same = equals_numpy(images, cipher, arguments.block_size)
        views = partial(fresh_views, images, cipher, arguments.block_size, arguments.threads)
        seconds = best_seconds(views, arguments.repeats, device)
        num_bytes = 2 * images.nbytes + 4 * words * images.nbytes // 3
        share = num_bytes / seconds / bandwidth
        rate = arguments.batch / seconds
        print(f"{cipher:36}{'yes' if same else 'NO':>14}{rate:10.1f}{100 * share:12.2f} %")
        if not same:
            raise SystemExit("the device does not keep to the specification")


if __name__ == "__main__":
    main()
