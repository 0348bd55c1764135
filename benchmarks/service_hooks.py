"""What Schemathesis has to know of the service's requests beyond its OpenAPI description.

    st --config-file benchmarks/schemathesis.toml run URL/openapi.json

`image/png` is a PNG: encrypted images look like noise, so noise of the model's size stands for them
(QUERY_SIZE, by default that of the default config).
"""

import os
import random
import struct
import zlib

import schemathesis
from hypothesis import strategies as st

HEIGHT, WIDTH = map(int, os.environ.get("QUERY_SIZE", "64x128").split("x"))


def png(rows: bytes) -> bytes:
    """Rows of (filter byte, RGB values) -> an 8-bit RGB PNG."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def noise(seed: int) -> bytes:
    """A PNG of random pixels."""
    draw = random.Random(seed).randbytes
    return png(b"".join(b"\0" + draw(3 * WIDTH) for _ in range(HEIGHT)))


schemathesis.openapi.media_type("image/png", st.integers(0, 2**32 - 1).map(noise))
