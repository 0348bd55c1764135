"""The page's modules, run in a browser: keys, ciphers, scaling and PNGs are those of Python."""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

import cipher_specification
import numpy as np
import pytest
import small_service
from chromium import in_page, needs_chromium
from PIL import Image
from recorded_service import recorded_service

from fl_ppseg.config.cipher_versions import VERSIONS
from fl_ppseg.crypto.ciphers.cipher import SCOPES
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.views import fit_for_scoring
from fl_ppseg.service.app import create_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_chromium

FILES = {name: json.loads((cipher_specification.VECTORS / name).read_text("utf-8"))
         for name in ("ciphers.json", "shuffle.json", "keys.json")}  # fmt: skip
CASES = FILES["ciphers.json"]["cases"] + [
    {"cipher": "shuffle"} | case for case in FILES["shuffle.json"]["cases"] if case["step"] == 0
]
KEY = bytes(range(32))
IMPORT_KEY = """
    const key = await crypto.subtle.importKey(
        "raw", values[0], { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
"""
ENCRYPT = f"""
    const {{ encrypt }} = await import("/page/ciphers.js");
    {IMPORT_KEY}
    const [, height, width, data, spec] = values;
    const picture = {{ height, width, data }};
    return (await encrypt(picture, key, spec)).data;
"""


@pytest.fixture(scope="module")
def page(browser: "Browser") -> Iterator[Any]:
    with recorded_service(create_app(small_service.segmenter())) as service:
        found = browser.new_page()
        found.goto(service.url)
        yield found
        found.close()


def as_bytes(image: np.ndarray) -> bytes:
    """(3, H, W) -> H W 3 values, as a page has them."""
    return image.transpose(1, 2, 0).tobytes()


def encrypted(page: Any, image: np.ndarray, key: bytes, **spec: object) -> np.ndarray:
    """(3, H, W) -> (3, H, W), by the page."""
    _, height, width = image.shape
    values = in_page(page, ENCRYPT, key, height, width, as_bytes(image), spec)
    return np.frombuffer(values, np.uint8).reshape(height, width, 3).transpose(2, 0, 1)


@pytest.mark.parametrize("case", FILES["keys.json"]["streams"], ids=lambda case: case["label"][:20])
def test_streams_equal_the_vectors(page: Any, case: dict[str, str]) -> None:
    body = f"""
        const {{ stream }} = await import("/page/keys.js");
        {IMPORT_KEY}
        return stream(key, values[1], values[2]);
    """
    expected = bytes.fromhex(case["bytes"])
    key = bytes.fromhex(case["subkey"])
    assert in_page(page, body, key, case["label"], len(expected)) == expected


def test_ciphers_equal_the_vectors(page: Any) -> None:
    for case in CASES:
        size, (grid_h, grid_w) = case["block_size"], case["grid"]
        c, y, x = np.ogrid[:3, : grid_h * size, : grid_w * size]
        plain = ((7 * c + 3 * y + 5 * x) % 256).astype(np.uint8)
        spec = {"cipher": case["cipher"], "scope": case["scope"], "block_size": size}
        secret = encrypted(page, plain, bytes.fromhex(case["subkey"]), **spec)
        assert hashlib.sha256(secret.tobytes()).hexdigest() == case["image_sha256"], case


@pytest.mark.parametrize("size", [8, 16, 20])  # 20: words of 64 bits
@pytest.mark.parametrize("scope", SCOPES)
def test_ciphers_equal_python_on_many_blocks(page: Any, scope: Any, size: int) -> None:
    image = np.random.default_rng(size).integers(0, 256, (3, 6 * size, 9 * size), np.uint8)
    for cipher in (*VERSIONS, "etc+shuffle", "shuffle-spatial+negative-positive"):
        expected = encrypt(image, SubKey.from_bytes(KEY), cipher, block_size=size, scope=scope)
        found = encrypted(page, image, KEY, cipher=cipher, scope=scope, block_size=size)
        np.testing.assert_array_equal(found, expected, cipher)


def test_the_page_knows_every_cipher_in_its_version_and_no_other(page: Any) -> None:
    body = """
        const { whyNot } = await import("/page/ciphers.js");
        return values.map(([cipher, versions]) => whyNot(cipher, versions));
    """
    product = "+".join(VERSIONS)
    assert in_page(page, body, [product, VERSIONS]) == [None]
    for name, version in VERSIONS.items():
        other = VERSIONS | {name: version + 1}
        (reason,) = in_page(page, body, [product, other])
        assert name in reason and str(version + 1) in reason
    (reason,) = in_page(page, body, ["shuffle+constructor", VERSIONS])
    assert "constructor is not in this page" in reason


def test_a_new_key_is_256_bits_that_no_script_can_read(page: Any) -> None:
    body = """
        const { newKey } = await import("/page/keys.js");
        const key = await newKey();
        const refused = await crypto.subtle.exportKey("raw", key).catch((error) => error.name);
        return [key.extractable, key.algorithm, key.usages, refused];
    """
    extractable, algorithm, usages, refused = in_page(page, body)
    assert (extractable, usages, refused) == (False, ["sign"], "InvalidAccessError")
    assert algorithm == {"name": "HMAC", "hash": {"name": "SHA-256"}, "length": 256}


FIT = """
    const { fitted } = await import("/page/fitting.js");
    const [height, width, data, spec] = values;
    const { query, place } = fitted({ height, width, data }, spec);
    return [query.height, query.width, query.data, place];
"""


@pytest.mark.parametrize("policy", ["resize", "crop"])
@pytest.mark.parametrize("size", [(31, 64), (32, 64), (90, 50), (20, 71), (13, 9), (150, 200)])
def test_a_picture_becomes_the_query_that_python_makes(
    page: Any, size: tuple[int, int], policy: Any
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, *size), np.uint8)
    expected, _ = fit_for_scoring(image, image[0], (32, 64), policy, 8)
    spec = {"fit": policy, "image_size": [32, 64], "block_size": 8}
    height, width, data, place = in_page(page, FIT, *size, as_bytes(image), spec)
    found = np.frombuffer(data, np.uint8).reshape(height, width, 3).transpose(2, 0, 1)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (1 if policy == "resize" else 0)
    if policy == "crop":
        rows = slice(place["top"], place["top"] + size[0])
        columns = slice(place["left"], place["left"] + size[1])
        np.testing.assert_array_equal(found[:, rows, columns], image)


def test_scaling_is_pillows_but_for_one_grey_level(page: Any) -> None:
    image = np.random.default_rng(1).integers(0, 256, (3, 200, 333), np.uint8)
    spec = {"fit": "resize", "image_size": [64, 128], "block_size": 8}
    _, _, data, _ = in_page(page, FIT, 200, 333, as_bytes(image), spec)
    picture = Image.fromarray(image.transpose(1, 2, 0))
    expected = np.asarray(picture.resize((128, 64), Image.Resampling.BILINEAR), int)
    assert np.abs(np.frombuffer(data, np.uint8).reshape(64, 128, 3) - expected).max() <= 1


def test_png_files_are_written_without_loss_as_8_bit_rgb(page: Any) -> None:
    image = np.random.default_rng(2).integers(0, 256, (3, 37, 50), np.uint8)
    body = """
        const { encodePng } = await import("/page/png.js");
        const [height, width, data] = values;
        return encodePng({ height, width, data });
    """
    file = in_page(page, body, 37, 50, as_bytes(image))
    with Image.open(BytesIO(file)) as opened:
        assert (opened.mode, opened.info) == ("RGB", {})
        np.testing.assert_array_equal(np.asarray(opened).transpose(2, 0, 1), image)


DECODE = """
    const { decodePng } = await import("/page/png.js");
    try {
        const { height, width, numChannels, data } = await decodePng(values[0]);
        return [height, width, numChannels, data];
    } catch (error) {
        return error.message;
    }
"""


@pytest.mark.parametrize("channels", [1, 3])
def test_png_files_of_any_filter_are_read_exactly(page: Any, channels: int) -> None:
    values = np.random.default_rng(3).integers(0, 256, (61, 83, channels), np.uint8)
    picture = values if channels == 3 else values[..., 0]
    file = with_every_filter(picture)
    with Image.open(BytesIO(file)) as opened:  # so the file is as it should be
        np.testing.assert_array_equal(np.asarray(opened), picture)
    *shape, data = in_page(page, DECODE, file)
    assert shape == [61, 83, channels]
    assert data == picture.tobytes()


def with_every_filter(picture: np.ndarray) -> bytes:
    """(h, w) or (h, w, 3) -> a PNG of which row y has filter y mod 5 (ISO/IEC 15948, 9.2)."""
    values = picture.reshape(len(picture), picture.shape[1], -1).astype(int)
    around = np.pad(values, ((1, 0), (1, 0), (0, 0)))
    left, above, corner = around[1:, :-1], around[:-1, 1:], around[:-1, :-1]
    guess = left + above - corner
    far = np.abs(np.stack([left, above, corner]) - guess)
    paeth = np.choose(far.argmin(0), [left, above, corner])  # of equals the first
    predicted = [0 * left, left, above, (left + above) // 2, paeth]
    rows = [
        bytes([y % 5]) + (values[y] - predicted[y % 5][y]).astype(np.uint8).tobytes()
        for y in range(len(picture))
    ]
    header = struct.pack(
        ">IIBBBBB", picture.shape[1], len(picture), 8, 2 * (picture.ndim == 3), 0, 0, 0
    )
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def png(picture: np.ndarray) -> bytes:
    content = BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"GIF89a" + bytes(60), "not a PNG file"),
        (png(np.zeros((4, 4, 4), np.uint8)), "grey or RGB"),
        (png(np.zeros((4, 4), np.uint16)), "16 bits"),
    ],
)
def test_other_files_are_refused_in_words(page: Any, file: bytes, why: str) -> None:
    assert why in in_page(page, DECODE, file)
