"""A second reading of the specifications of `fl_ppseg.crypto.keys` and `fl_ppseg.crypto.ciphers`.

Plain Python on `hmac` and `hashlib`, slow and short on purpose; it imports nothing of fl_ppseg,
numpy or cryptography. It made the known-answer vectors; run as a script it makes them again.
"""

import hashlib
import hmac
import json
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from checkout import VECTORS

NOTE = (
    "Made by tests/support/cipher_specification.py, an independent plain-Python reading of the "
    "specification (RFC 5869, RFC 8439, docstrings of fl_ppseg.crypto.keys, "
    "fl_ppseg.crypto.ciphers.permutations and fl_ppseg.crypto.ciphers.shuffle), not "
    "by the code under test. Binary values are hex."
)
Block = list[int]
Place = tuple[int, int, int]


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


def view_subkey(key: bytes, part: str, city: str, file: str, view: int, salt: bytes) -> bytes:
    names = ("fl_ppseg/v1/view", part, city, file)
    texts = [name.encode("utf-8", "surrogatepass") for name in names]
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


@cache
def draw_permutations(
    subkey: bytes, label: str, length: int, num_rows: int
) -> tuple[list[list[int]], int]:
    """Return the permutations of the streams `<label>/attempt=<a>`, and how many attempts."""
    word_bytes = 4 if length <= 1024 else 8
    index_bits = 0
    while 2**index_bits < length:
        index_bits += 1
    found: dict[int, list[int]] = {}
    wanted = list(range(num_rows))
    attempt = 0
    while wanted:
        source = stream(subkey, f"{label}/attempt={attempt}".encode())
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


@cache
def draw_bytes(subkey: bytes, label: str, num_bytes: int) -> list[int]:
    source = stream(subkey, label.encode())
    return [next(source) for _ in range(num_bytes)]


def shuffle_permutations(
    subkey: bytes, block_size: int, num_blocks: int, scope: str, step: int
) -> tuple[list[list[int]], int]:
    length = 3 * block_size**2
    label = f"shuffle/{scope}/length={length}/step={step}"
    return draw_permutations(subkey, label, length, 1 if scope == "common" else num_blocks)


def digest_of(permutations: list[list[int]]) -> str:
    """SHA-256 of all entries, row by row, as 16-bit little-endian integers."""
    return hashlib.sha256(
        b"".join(struct.pack(f"<{len(row)}H", *row) for row in permutations)
    ).hexdigest()


def places_of(size: int) -> list[Place]:
    return [(c, y, x) for c in range(3) for y in range(size) for x in range(size)]


class Draw:
    """One cipher's random streams for one sub-key, block size, scope and step."""

    def __init__(self, subkey: bytes, size: int, num_blocks: int, scope: str, step: int) -> None:
        self.subkey, self.size, self.length = subkey, size, 3 * size**2
        self.num_rows = 1 if scope == "common" else num_blocks
        self.layout = f"{scope}/length={self.length}/step={step}"

    def permutations(self, name: str, length: int, times: int = 1) -> list[list[int]]:
        label = f"{name}/{self.layout}"
        return draw_permutations(self.subkey, label, length, times * self.num_rows)[0]

    def numbers(self, name: str, times: int) -> list[int]:
        label = f"{name}/{self.layout}/attempt=0"
        return draw_bytes(self.subkey, label, times * self.num_rows)


def shuffle(draw: Draw, row: int, block: Block) -> Block:
    return [block[source] for source in draw.permutations("shuffle", draw.length)[row]]


def shuffle_spatial(draw: Draw, row: int, block: Block) -> Block:
    num_pixels = draw.size**2
    pixels = [tuple(block[c * num_pixels + p] for c in range(3)) for p in range(num_pixels)]
    moved = [pixels[p] for p in draw.permutations("shuffle-spatial", num_pixels)[row]]
    return [pixel[c] for c in range(3) for pixel in moved]


def negative_positive(draw: Draw, row: int, block: Block) -> Block:
    row_bytes = (draw.length + 7) // 8
    drawn = draw.numbers("negative-positive/v2", row_bytes)[row_bytes * row :]
    bits = [drawn[place // 8] >> place % 8 & 1 for place in range(draw.length)]
    return [255 - v if bit else v for v, bit in zip(block, bits, strict=True)]


def ffx(draw: Draw, row: int, block: Block) -> Block:
    chosen = draw.permutations("ffx/positions", draw.length)[row][: draw.length // 2]
    rounds = draw.numbers("ffx/rounds", 16 * 36)[16 * 36 * row :]

    def substitute(value: int) -> int:
        a, b = value // 16, value % 16
        for i in range(36):
            a, b = b, a ^ rounds[16 * i + b] % 16
        return 16 * a + b

    return [substitute(v) if place in chosen else v for place, v in enumerate(block)]


def restricted_shuffle(draw: Draw, row: int, block: Block) -> Block:
    num_fixed = draw.length * 2 // 3
    order = draw.permutations(f"restricted-shuffle/fixed={num_fixed}", draw.length)[row]
    moving = order[: draw.length - num_fixed]
    result = block.copy()
    for target, source in zip(sorted(moving), moving, strict=True):
        result[target] = block[source]
    return result


def etc(draw: Draw, row: int, block: Block) -> Block:
    scramble = draw.permutations("etc/scramble", 4)[row]
    colours = draw.permutations("etc/colours", 3, times=4)[4 * row :]
    turns = draw.numbers("etc/turns", 4)[4 * row :]
    half = draw.size // 2
    values = dict(zip(places_of(draw.size), block, strict=True))
    result = []
    for c, y, x in places_of(draw.size):
        k = 2 * (y // half) + x // half
        v, u = y % half, x % half
        if turns[k] & 4:
            v, u = u, v
        if turns[k] & 2:
            v = half - 1 - v
        if turns[k] & 1:
            u = half - 1 - u
        top, left = scramble[k] // 2 * half, scramble[k] % 2 * half
        value = values[colours[k][c], top + v, left + u]
        result.append(255 - value if turns[k] & 8 else value)
    return result


CIPHERS: dict[str, Callable[[Draw, int, Block], Block]] = {
    "shuffle": shuffle,
    "shuffle-spatial": shuffle_spatial,
    "negative-positive": negative_positive,
    "ffx": ffx,
    "restricted-shuffle": restricted_shuffle,
    "etc": etc,
}


VERSIONS = dict.fromkeys(CIPHERS, 1) | {"negative-positive": 2}
"""Of the specifications that are read here."""


def plain_block(row: int, column: int, size: int) -> Block:
    """A block of the test image, value = (7c + 3y + 5x) mod 256."""
    return [
        (7 * c + 3 * (row * size + y) + 5 * (column * size + x)) % 256
        for c, y, x in places_of(size)
    ]


def encrypted_blocks(
    subkey: bytes, name: str, size: int, grid: tuple[int, int], scope: str
) -> list[Block]:
    """Encrypt the test image by a cipher or a product, block by block."""
    blocks = [plain_block(row, column, size) for row in range(grid[0]) for column in range(grid[1])]
    for step, factor in enumerate(name.split("+")):
        draw = Draw(subkey, size, len(blocks), scope, step)
        blocks = [
            CIPHERS[factor](draw, 0 if scope == "common" else number, block)
            for number, block in enumerate(blocks)
        ]
    return blocks


def image_of(blocks: list[Block], size: int, grid: tuple[int, int]) -> bytes:
    """Put blocks together into an image, in order (C, y, x)."""
    height, width = grid[0] * size, grid[1] * size
    result = bytearray(3 * height * width)
    for number, block in enumerate(blocks):
        top, left = number // grid[1] * size, number % grid[1] * size
        for (c, y, x), value in zip(places_of(size), block, strict=True):
            result[(c * height + top + y) * width + left + x] = value
    return bytes(result)


def shuffle_image(permutations: list[list[int]], block_size: int, grid: tuple[int, int]) -> bytes:
    """Encrypt the test image by given permutations, and return it in order (C, y, x)."""
    blocks = []
    for number in range(grid[0] * grid[1]):
        plain = plain_block(*divmod(number, grid[1]), block_size)
        blocks.append([plain[source] for source in permutations[number % len(permutations)]])
    return image_of(blocks, block_size, grid)


def key_vectors() -> dict[str, Any]:
    key = bytes(range(32))
    base = {"part": "train", "city": "aachen", "file": "aachen_000000_000019", "view": 0}
    salt = bytes(range(100, 116))
    changes: list[dict[str, Any]] = [
        {},
        {"part": "heldout"},
        {"city": "bremen"},
        {"file": "aachen_000001_000019"},
        {"view": 1},
        {"view": 2**40},
        {"salt": bytes(range(101, 117)).hex()},
        {"key": bytes(range(1, 33)).hex()},
        {"city": "ab", "file": "c"},
        {"city": "a", "file": "bc"},
        {"city": "abc", "file": ""},
        {"city": "zürich"},
    ]
    views = [{"key": key.hex(), **base, "salt": salt.hex(), **change} for change in changes]
    for view in views:
        secret, view_salt = bytes.fromhex(view["key"]), bytes.fromhex(view["salt"])
        names = (view["part"], view["city"], view["file"])
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


def cipher_vectors() -> dict[str, Any]:
    layouts = [
        (2, (2, 3), "common"),
        (2, (2, 3), "per-block"),
        (6, (1, 2), "common"),
        (8, (2, 2), "per-block"),
    ]
    extra = [
        ("shuffle-spatial", 5, (3, 1), "per-block"),
        ("shuffle-spatial", 33, (1, 1), "common"),  # 1089 pixels: words of 64 bits
        ("negative-positive", 1, (1, 2), "per-block"),
        ("negative-positive", 16, (1, 2), "common"),
        ("ffx", 3, (1, 2), "per-block"),
        ("restricted-shuffle", 16, (1, 2), "common"),
        ("restricted-shuffle", 1, (1, 2), "per-block"),
        ("etc", 16, (1, 2), "common"),
    ]
    products = [
        "shuffle+negative-positive",
        "negative-positive+shuffle",
        "shuffle-spatial+negative-positive",
        "etc+restricted-shuffle+ffx",
    ]
    names = [*CIPHERS, *products]
    cases = []
    for name, size, grid, scope in [*((n, *layout) for n in names for layout in layouts), *extra]:
        subkey = hashlib.sha256(f"{name} vector {size}".encode()).digest()
        blocks = encrypted_blocks(subkey, name, size, grid, scope)
        cases.append(
            {
                "cipher": name,
                "subkey": subkey.hex(),
                "block_size": size,
                "grid": grid,
                "scope": scope,
                "first_values": blocks[-1][:12],
                "image_sha256": hashlib.sha256(image_of(blocks, size, grid)).hexdigest(),
            }
        )
    return {
        "versions": VERSIONS,
        "note": NOTE.replace(
            "fl_ppseg.crypto.keys, fl_ppseg.crypto.ciphers.permutations and "
            "fl_ppseg.crypto.ciphers.shuffle",
            "fl_ppseg.crypto.keys and fl_ppseg.crypto.ciphers",
        )
        + " The image is (7c + 3y + 5x) mod 256; first_values are those of its last block.",
        "cases": cases,
    }


def main() -> None:
    VECTORS.mkdir(exist_ok=True)
    made = {"keys": key_vectors(), "shuffle": shuffle_vectors(), "ciphers": cipher_vectors()}
    for name, vectors in made.items():
        text = json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"
        (VECTORS / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
