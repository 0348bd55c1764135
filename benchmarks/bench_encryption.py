"""Time of encrypting one frame, as ratios to copying it and to a plain Python loop over its blocks;
of every cipher, as ratios to `shuffle`.

    python benchmarks/bench_encryption.py --height 1024 --width 2048 --block-size 16

One process on one core; best of several runs; every ratio is of times from the same run.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from fl_ppseg.crypto.ciphers.cipher import SCOPES, Scope
from fl_ppseg.crypto.ciphers.encryption import decrypt, encrypt
from fl_ppseg.crypto.ciphers.registry import CIPHERS, get_cipher
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry, from_blocks, to_blocks
from fl_ppseg.system.arrays import Pixels


def best_ms(action: Callable[[], object], repeats: int) -> float:
    """Return the shortest of `repeats` times, in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


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


def print_ciphers(image: Pixels, subkey: SubKey, block_size: int, repeats: int) -> None:
    """Print what each cipher takes for encryption and decryption, beside `shuffle`."""
    print(f"\n{'':44}{'encrypt':>9}{'x shuffle':>11}{'decrypt':>11}{'x shuffle':>11}")
    for scope in SCOPES:
        usual = None
        for name in (*CIPHERS, "shuffle+negative-positive", "shuffle-spatial+negative-positive"):
            there, back = (
                best_ms(
                    partial(function, image, subkey, name, block_size=block_size, scope=scope),
                    repeats,
                )
                for function in (encrypt, decrypt)
            )
            usual = usual or (there, back)
            ratios = f"{there:9.1f}{there / usual[0]:11.2f}{back:11.1f}{back / usual[1]:11.2f}"
            print(f"{f'{name}, {scope}':44}{ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--height", type=int, default=1024, help="pixels (default 1024)")
    parser.add_argument("--width", type=int, default=2048, help="pixels (default 2048)")
    parser.add_argument("--block-size", type=int, default=16, help="pixels (default 16)")
    parser.add_argument(
        "--repeats", type=int, default=7, help="runs to take the best of (default 7)"
    )
    arguments = parser.parse_args()
    size, repeats = arguments.block_size, arguments.repeats
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    shape = (3, arguments.height, arguments.width)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    geometry, subkey, shuffle = (
        Geometry.of_image(shape, size),
        SubKey.generate(),
        get_cipher("shuffle"),
    )
    blocks = to_blocks(image, size)
    parameters = shuffle.draw(subkey, geometry, "per-block")

    def whole(function: Callable[..., Pixels], scope: Scope) -> Callable[[], object]:
        return lambda: function(image, subkey, block_size=size, scope=scope)

    num_bytes = 4 * image.size
    actions: dict[str, Callable[[], object]] = {
        "encrypt, per-block": whole(encrypt, "per-block"),
        "  of it ChaCha20": lambda: subkey.stream(b"benchmark", num_bytes),
        "  of it draw, ChaCha20 included": lambda: shuffle.draw(subkey, geometry, "per-block"),
        "  of it to blocks": lambda: to_blocks(image, size),
        "  of it apply": lambda: shuffle.apply(blocks, parameters),
        "  of it from blocks": lambda: from_blocks(blocks, geometry),
        "decrypt, per-block": whole(decrypt, "per-block"),
        "encrypt, common": whole(encrypt, "common"),
        "decrypt, common": whole(decrypt, "common"),
    }
    copy_ms = best_ms(image.copy, 10 * repeats)
    loop_ms = best_ms(lambda: encrypt_by_loop(image, subkey, size), 2)
    print(
        f"frame {shape}, blocks of {size}: {geometry.num_blocks} x {geometry.block_length} values"
    )
    print(f"{'':32}{'ms':>9}{'x copy':>9}{'loop / it':>11}")
    print(f"{'copy of the frame':32}{copy_ms:9.2f}{1:9.1f}")
    print(f"{'loop over the blocks, per-block':32}{loop_ms:9.2f}{loop_ms / copy_ms:9.1f}{1:11.1f}")
    for name, action in actions.items():
        ms = best_ms(action, repeats)
        print(f"{name:32}{ms:9.2f}{ms / copy_ms:9.1f}{loop_ms / ms:11.1f}")
    print_ciphers(image, subkey, size, max(1, repeats // 2))


if __name__ == "__main__":
    main()
