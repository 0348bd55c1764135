"""Time of encrypting one frame, as ratios to copying it and to a plain Python loop over its blocks;
of every cipher, as ratios to `shuffle`; of a batch by threads.

    python benchmarks/bench_encryption.py --height 1024 --width 2048 --block-size 16

All but the last on one core, in processor time, so that what else runs there counts little; best
of several runs; every ratio is of times from the same run. Two copies are measured: of a frame that
is in the processor's cache, and of one frame after another, more than any cache holds.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle

import numpy as np

from fl_ppseg.crypto.ciphers.cipher import SCOPES
from fl_ppseg.crypto.ciphers.encryption import decrypt, encrypt, encrypt_batch
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry, from_blocks, to_blocks
from fl_ppseg.system.arrays import Pixels

DEFAULT_PRODUCT = "shuffle-spatial+negative-positive"
NUM_COPIED = 40
"""Frames that are copied in turn, which no cache holds together with their copies."""
BATCH = 8


def best_ms(action: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """Return the shortest of `repeats` times by a clock in seconds, in milliseconds."""
    times = []
    for _ in range(repeats):
        start = clock()
        action()
        times.append(clock() - start)
    return 1000 * min(times)


on_one_core = partial(best_ms, clock=time.thread_time)


def encrypt_by_loop(image: Pixels, subkey: SubKey, block_size: int) -> Pixels:
    """Encrypt block by block, as one would write it first: sort a block's words, then index."""
    secret = np.empty_like(image)
    block_shape = (3, block_size, block_size)
    length = 3 * block_size**2
    words = np.frombuffer(subkey.stream(b"loop", 4 * image.size), "<u4").reshape(-1, length)
    block = 0
    for top in range(0, image.shape[1], block_size):
        for left in range(0, image.shape[2], block_size):
            window = np.s_[:, top : top + block_size, left : left + block_size]
            permutation = np.argsort(words[block])
            secret[window] = image[window].reshape(-1)[permutation].reshape(block_shape)
            block += 1
    return secret


def copy_in_turn(image: Pixels) -> Callable[[], object]:
    """Copy the next of many frames into a place of its own."""
    frames = np.tile(image, (NUM_COPIED, 1, 1, 1))
    copies = np.zeros_like(frames)
    pairs = cycle(zip(copies, frames, strict=True))
    return lambda: np.copyto(*next(pairs))


def print_parts(image: Pixels, subkey: SubKey, block_size: int, repeats: int) -> None:
    """Print what encryption per block takes, and parts of it, in copies of the frame."""
    geometry = Geometry.of_image(image.shape, block_size)
    blocks = to_blocks(image, block_size)
    words = np.frombuffer(subkey.stream(b"sort", 4 * image.size), "<u4").reshape(blocks.shape)

    def sort() -> None:
        for start in range(0, len(words), 128):
            np.sort(words[start : start + 128], axis=1)

    def whole(function: Callable[..., Pixels], cipher: str) -> Callable[[], object]:
        return partial(function, image, subkey, cipher, block_size=block_size, scope="per-block")

    actions: dict[str, Callable[[], object]] = {
        "shuffle, encrypt": whole(encrypt, "shuffle"),
        "  of it ChaCha20": lambda: subkey.stream(b"benchmark", 4 * image.size),
        "  of it sorting such words": sort,
        "  of it to blocks": lambda: to_blocks(image, block_size),
        "  of it from blocks": lambda: from_blocks(blocks, geometry),
        "shuffle, decrypt": whole(decrypt, "shuffle"),
        "default product, encrypt": whole(encrypt, DEFAULT_PRODUCT),
        "default product, decrypt": whole(decrypt, DEFAULT_PRODUCT),
    }
    cached_ms = on_one_core(image.copy, 10 * repeats)
    far_ms = on_one_core(copy_in_turn(image), 3 * NUM_COPIED)
    loop_ms = on_one_core(lambda: encrypt_by_loop(image, subkey, block_size), 2)
    print(
        f"frame {image.shape}, blocks of {block_size}: "
        f"{geometry.num_blocks} x {geometry.block_length} values; per-block"
    )
    print(f"{'':32}{'ms':>9}{'x cached copy':>15}{'x copy':>9}{'loop / it':>11}")
    rows = {"cached copy of the frame": cached_ms, "copy of the frame": far_ms}
    rows["loop over the blocks"] = loop_ms
    for name, action in actions.items():
        rows[name] = on_one_core(action, repeats)
    for name, ms in rows.items():
        print(f"{name:32}{ms:9.2f}{ms / cached_ms:15.1f}{ms / far_ms:9.1f}{loop_ms / ms:11.1f}")


def print_ciphers(image: Pixels, subkey: SubKey, block_size: int, repeats: int) -> None:
    """Print what each cipher takes for encryption and decryption, beside `shuffle`."""
    print(f"\n{'':46}{'encrypt':>9}{'x shuffle':>11}{'decrypt':>11}{'x shuffle':>11}")
    for scope in SCOPES:
        usual = None
        for name in (*CIPHERS, "shuffle+negative-positive", DEFAULT_PRODUCT):
            there, back = (
                on_one_core(
                    partial(function, image, subkey, name, block_size=block_size, scope=scope),
                    repeats,
                )
                for function in (encrypt, decrypt)
            )
            usual = usual or (there, back)
            ratios = f"{there:9.1f}{there / usual[0]:11.2f}{back:11.1f}{back / usual[1]:11.2f}"
            print(f"{f'{name}, {scope}':46}{ratios}")


def print_threads(image: Pixels, block_size: int, num_cores: int, repeats: int) -> None:
    """Print what a frame of a batch takes with more threads, by the clock on the wall."""
    images, subkeys = np.tile(image, (BATCH, 1, 1, 1)), [SubKey.generate() for _ in range(BATCH)]
    print(f"\n{f'ms a frame of a batch of {BATCH}, {num_cores} cores':46}{'1 at a time / it':>20}")
    for name in ("shuffle", DEFAULT_PRODUCT):
        alone = None
        for num_threads in (n for n in (1, 2, 4, 8) if n <= num_cores):
            action = partial(encrypt_batch, images, subkeys, name, num_threads=num_threads)
            run = partial(action, block_size=block_size, scope="per-block")
            ms = best_ms(run, repeats, time.perf_counter) / BATCH
            alone = alone or ms
            row = f"{name}, {num_threads} at a time"
            print(f"{row:46}{ms:9.1f}{alone / ms:11.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--height", type=int, default=1024, help="pixels (default 1024)")
    parser.add_argument("--width", type=int, default=2048, help="pixels (default 2048)")
    parser.add_argument("--block-size", type=int, default=16, help="pixels (default 16)")
    parser.add_argument(
        "--repeats", type=int, default=20, help="runs to take the best of (default 20)"
    )
    arguments = parser.parse_args()
    size, repeats = arguments.block_size, arguments.repeats
    shape = (3, arguments.height, arguments.width)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    subkey = SubKey.generate()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    if cores:
        os.sched_setaffinity(0, {min(cores)})
    print_parts(image, subkey, size, repeats)
    print_ciphers(image, subkey, size, max(1, repeats // 4))
    if cores:
        os.sched_setaffinity(0, cores)
    print_threads(image, size, len(cores) or os.cpu_count() or 1, max(1, repeats // 4))


if __name__ == "__main__":
    main()
