"""A second reading of the specifications of `fl_ppseg.keys` and `ciphers.permutations`.

Plain Python on `hmac` and `hashlib`, slow and short on purpose; it imports nothing of fl_ppseg,
numpy or cryptography. It made the known-answer vectors; run as a script it makes them again.
"""

import hashlib
import hmac
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent / "vectors"
NOTE = (
    "Made by tests/cipher_specification.py, an independent plain-Python reading of the "
    "specification (RFC 5869, RFC 8439, docstrings of fl_ppseg.keys, fl_ppseg.ciphers.permutations "
    "and fl_ppseg.ciphers.shuffle), not by the code under test. Binary values are hex."
)


def hkdf_extract(salt: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt, secret, "sha256")


def hkdf_expand(pseudo_random_key: bytes, info: bytes, length: int) -> bytes:
    output, block, counter = b"", b"", 1
    while len(output) < length:
        block = hmac.digest(pseudo_random_key, block + info + bytes([counter]), "sha256")
        output, counter = output + block, counter + 1
    return output[:length]


def quarter_round(x: list[int], a: int, b: int, c: int, d: int) -> None:
    for target, source, mixed, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        x[target] = (x[target] + x[source]) & 0xFFFFFFFF
        mix = x[mixed] ^ x[target]
        x[mixed] = (mix << turn | mix >> (32 - turn)) & 0xFFFFFFFF


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    state = [
        *struct.unpack("<4I", b"expand 32-byte k"),
        *struct.unpack("<8I", key),
        counter,
        *struct.unpack("<3I", nonce),
    ]
    x = state.copy()
    for _ in range(10):
        for column in range(4):
            quarter_round(x, column, column + 4, column + 8, column + 12)
        for i in range(4):
            quarter_round(x, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(x, state, strict=True)))


def fields(*values: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(value)) + value for value in values)


def view_subkey(key: bytes, split: str, city: str, file: str, view: int, salt: bytes) -> bytes:
    texts = [text.encode() for text in ("fl_ppseg/v1/view", split, city, file)]
    return hkdf_expand(hkdf_extract(salt, key), fields(*texts, struct.pack(">Q", view)), 32)


def client_subkey(key: bytes, salt: bytes) -> bytes:
    return hkdf_expand(hkdf_extract(salt, key), fields(b"fl_ppseg/v1/client"), 32)


def stream(subkey: bytes, label: bytes) -> Iterator[int]:
    key = hkdf_expand(subkey, fields(b"fl_ppseg/v1/stream", label), 32)
    counter = 0
    while True:
        yield from chacha20_block(key, counter, bytes(12))
        counter += 1


def fingerprint(kind: str, key: bytes) -> str:
    return hashlib.sha256(fields(b"fl_ppseg/v1/fingerprint", kind.encode(), key)).hexdigest()[:16]


def shuffle_permutations(
    subkey: bytes, block_size: int, num_blocks: int, scope: str, step: int
) -> tuple[list[list[int]], int]:
    """Return the permutation of each draw, and how many attempts they took in all."""
    length = 3 * block_size**2
    word_bytes = 4 if length <= 1024 else 8
    index_bits = 0
    while 2**index_bits < length:
        index_bits += 1
    found: dict[int, list[int]] = {}
    wanted = list(range(1 if scope == "common" else num_blocks))
    attempt = 0
    while wanted:
        label = f"shuffle/{scope}/length={length}/step={step}/attempt={attempt}"
        source = stream(subkey, label.encode())
        for row in wanted:
            words = [
                int.from_bytes([next(source) for _ in range(word_bytes)], "little")
                for _ in range(length)
            ]
            random_parts = [word >> index_bits for word in words]
            if len(set(random_parts)) == length:
                found[row] = sorted(range(length), key=random_parts.__getitem__)
        wanted = [row for row in wanted if row not in found]
        attempt += 1
    return [found[row] for row in sorted(found)], attempt


def digest_of(permutations: list[list[int]]) -> str:
    """SHA-256 of all entries, row by row, as 16-bit little-endian integers."""
    return hashlib.sha256(
        b"".join(struct.pack(f"<{len(row)}H", *row) for row in permutations)
    ).hexdigest()


def shuffle_image(permutations: list[list[int]], block_size: int, grid: tuple[int, int]) -> bytes:
    """Encrypt the test image, value = (7c + 3y + 5x) mod 256, and return it in order (C, y, x)."""
    height, width = grid[0] * block_size, grid[1] * block_size
    result = bytearray(3 * height * width)
    for block in range(grid[0] * grid[1]):
        top, left = block // grid[1] * block_size, block % grid[1] * block_size
        places = [
            (channel, top + y, left + x)
            for channel in range(3)
            for y in range(block_size)
            for x in range(block_size)
        ]
        permutation = permutations[block % len(permutations)]
        for (channel, y, x), source in zip(places, permutation, strict=True):
            c, v, u = places[source]
            result[(channel * height + y) * width + x] = (7 * c + 3 * v + 5 * u) % 256
    return bytes(result)


def key_vectors() -> dict[str, Any]:
    key = bytes(range(32))
    base = {"split": "train", "city": "aachen", "file": "aachen_000000_000019", "view": 0}
    salt = bytes(range(100, 116))
    changes: list[dict[str, Any]] = [
        {},
        {"split": "val"},
        {"city": "bremen"},
        {"file": "aachen_000001_000019"},
        {"view": 1},
        {"view": 2**40},
        {"salt": bytes(range(101, 117)).hex()},
        {"key": bytes(range(1, 33)).hex()},
        {"city": "ab", "file": "c"},
        {"city": "a", "file": "bc"},
        {"city": "abc", "file": ""},
        {"split": "traina", "city": "achen"},
        {"city": "zürich"},
    ]
    views = [{"key": key.hex(), **base, "salt": salt.hex(), **change} for change in changes]
    for view in views:
        secret, view_salt = bytes.fromhex(view["key"]), bytes.fromhex(view["salt"])
        names = (view["split"], view["city"], view["file"])
        view["subkey"] = view_subkey(secret, *names, view["view"], view_salt).hex()
    streams = []
    for label in (b"", b"shuffle", b"shuffle/step=1"):
        source = stream(key, label)
        streams.append(
            {
                "subkey": key.hex(),
                "label": label.decode(),
                "bytes": bytes(next(source) for _ in range(150)).hex(),
            }
        )
    return {
        "note": NOTE,
        "views": views,
        "clients": [
            {"key": key.hex(), "salt": salt.hex(), "subkey": client_subkey(key, salt).hex()}
        ],
        "streams": streams,
        "fingerprints": [
            {"class": kind, "key": key.hex(), "fingerprint": fingerprint(kind, key)}
            for kind in ("ClientKey", "SubKey")
        ],
    }


def shuffle_vectors() -> dict[str, Any]:
    layouts = [
        (1, (1, 2), "per-block", 0),
        (2, (2, 3), "common", 0),
        (2, (2, 3), "per-block", 0),
        (2, (2, 3), "per-block", 1),
        (5, (3, 1), "per-block", 0),
        (8, (2, 4), "per-block", 0),
        (16, (4, 8), "common", 0),
        (16, (8, 12), "per-block", 0),  # 96 rows of 768, of which some tie
        (19, (1, 2), "per-block", 0),  # 1083 values: words of 64 bits
        (32, (2, 1), "common", 2),
    ]
    cases = []
    for block_size, grid, scope, step in layouts:
        subkey = hashlib.sha256(f"shuffle vector {block_size}".encode()).digest()
        permutations, attempts = shuffle_permutations(
            subkey, block_size, grid[0] * grid[1], scope, step
        )
        image = shuffle_image(permutations, block_size, grid)
        cases.append(
            {
                "subkey": subkey.hex(),
                "block_size": block_size,
                "grid": grid,
                "scope": scope,
                "step": step,
                "num_attempts": attempts,
                "first_values": permutations[-1][:12],
                "permutations_sha256": digest_of(permutations),
                "image_sha256": hashlib.sha256(image).hexdigest(),
            }
        )
    return {
        "note": NOTE
        + " The image is (7c + 3y + 5x) mod 256; permutations are hashed row by row as 16-bit "
        "little-endian integers; first_values are those of the last row.",
        "cases": cases,
    }


def main() -> None:
    VECTORS.mkdir(exist_ok=True)
    for name, vectors in (("keys", key_vectors()), ("shuffle", shuffle_vectors())):
        text = json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"
        (VECTORS / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
