"""What the service refuses, each with its status and one line; and it goes on after each."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import small_service as small
from fastapi.testclient import TestClient
from PIL import Image

from fl_ppseg.service.limits import Limits

LIMITS = Limits(max_bytes=2**16, max_pixels=2**13, body_seconds=0.2)
RGB = np.random.default_rng(0).integers(0, 256, (32, 64, 3)).astype(np.uint8)
Upload = dict[str, Any]


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    """The head of a PNG of that many pixels a side, and next to nothing of them."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99)))


def exif_turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.fromarray(RGB), "JPEG", exif=exif.tobytes())


GOOD = saved(Image.fromarray(RGB))
ROW = b"\0" + bytes(64 * 6)
DEEP = b"\x89PNG\r\n\x1a\n" + b"".join(
    chunk(*each)
    for each in (
        (b"IHDR", struct.pack(">IIBBBBB", 64, 32, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(ROW * 32)),
        (b"IEND", b""),
    )
)
PALETTE = saved(Image.fromarray(RGB).convert("P"))
TWO = saved(Image.fromarray(RGB), save_all=True, append_images=[Image.fromarray(255 - RGB)])
TALL = saved(Image.fromarray(RGB[:, :60]))
BROKEN = GOOD[:200] + bytes([GOOD[200] ^ 1]) + GOOD[201:]
TEXT = {"Content-Type": "text/plain"}
REFUSED: dict[str, tuple[int, str, Upload]] = {
    "nothing": (415, "expected a PNG", {"content": b""}),
    "a text file called .png": (415, "expected a PNG", {"content": b"not a picture\n"}),
    "no content type": (415, "Content-Type image/png", {"content": GOOD, "headers": {}}),
    "another content type": (415, "Content-Type image/png", {"content": GOOD, "headers": TEXT}),
    "a form": (415, "Content-Type image/png", {"files": {"file": GOOD}, "headers": {}}),
    "packed": (
        415,
        "no Content-Encoding",
        {"content": zlib.compress(GOOD), "headers": small.PNG | {"Content-Encoding": "deflate"}},
    ),
    "JPEG": (
        415,
        "Content-Type image/png",
        {"content": exif_turned(), "headers": {"Content-Type": "image/jpeg"}},
    ),
    "a turned JPEG called PNG": (415, "expected a PNG", {"content": exif_turned()}),
    "16 bits": (422, "16-bit RGB", {"content": DEEP}),
    "16 bits, grey": (
        422,
        "16-bit grey",
        {"content": saved(Image.fromarray(RGB[..., 0].astype(np.uint16)))},
    ),
    "palette": (422, "8-bit palette", {"content": PALETTE}),
    "grey": (422, "8-bit grey", {"content": saved(Image.fromarray(RGB[..., 0]))}),
    "alpha": (
        422,
        "8-bit RGB with alpha",
        {"content": saved(Image.fromarray(RGB).convert("RGBA"))},
    ),
    "a colour that is transparent": (
        422,
        "transparent",
        {"content": saved(Image.fromarray(RGB), transparency=(1, 2, 3))},
    ),
    "an animation": (422, "animation", {"content": TWO}),
    "no multiple of the block": (422, "whole blocks of 8", {"content": TALL}),
    "smaller than a window": (
        422,
        "at least 32 x 64",
        {"content": saved(Image.fromarray(RGB[:24]))},
    ),
    "30,000 pixels a side": (413, "30000 x 30000 pixels", {"content": bomb(30_000)}),
    "2^31 pixels a side": (413, "at most 8192", {"content": bomb(2**31 - 1)}),
    "pixels that never come": (422, "damaged or was cut off", {"content": bomb(64)}),
    "cut off": (422, "damaged or was cut off", {"content": GOOD[:-500]}),
    "cut off in its head": (415, "expected a PNG", {"content": GOOD[:20]}),
    "a flipped bit": (422, "damaged or was cut off", {"content": BROKEN}),
    "too many bytes": (413, "more than 65536 bytes", {"content": GOOD + bytes(2**16)}),
    "a plain photograph": (
        422,
        "looks like a plain image, not like a ciphertext of shuffle-spatial+negative-positive",
        {"content": small.png(small.photograph())},
    ),
    "no such answer": (422, "answer: ", {"content": GOOD, "params": {"answer": "colours"}}),
    "no height": (422, "height: ", {"content": GOOD, "params": {"height": 0, "width": 5}}),
    "words for a width": (422, "width: ", {"content": GOOD, "params": {"width": "wide"}}),
    "a large answer": (
        413,
        "at most 8192",
        {"content": GOOD, "params": {"height": 8000, "width": 8000}},
    ),
}


@pytest.fixture(scope="module")
def client(one_thread: None) -> Iterator[TestClient]:
    with small.client(limits=LIMITS) as found:
        yield found


def goes_on(client: TestClient) -> bool:
    content = small.png(small.query())
    return client.post("/v1/segment", content=content, headers=small.PNG).status_code == 200


@pytest.mark.parametrize("upload", REFUSED.values(), ids=REFUSED)
def test_refused(client: TestClient, upload: tuple[int, str, Upload]) -> None:
    status, why, request = upload
    answer = client.post("/v1/segment", **{"headers": small.PNG} | request)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    (detail,) = answer.json().values()
    assert why in detail
    assert detail.isprintable() and "Traceback" not in detail
    assert goes_on(client)


def test_a_body_without_a_length_is_counted(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(2**8):  # so that a test that fails ends
            yield bytes(2**12)

    answer = client.post("/v1/segment", content=endless(), headers=small.PNG)
    assert answer.status_code == 413
    assert goes_on(client)


@pytest.mark.parametrize("length", ["99999999999999999999999999", "8589934592"])
def test_a_length_that_is_too_large_is_refused_before_the_body(
    client: TestClient, length: str
) -> None:
    headers = small.PNG | {"Content-Length": length}
    answer = client.post("/v1/segment", content=GOOD, headers=headers)
    assert answer.status_code == 413
    assert goes_on(client)


@pytest.mark.parametrize("path", ["/v1/segment", "/v1/model", "/", "/page/x.js", "/healthz"])
@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH"])
def test_other_methods_are_refused(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"]


def test_no_route_could_take_a_key(client: TestClient) -> None:
    """All that the service takes are PNGs and the parameters of an answer."""
    paths = client.get("/openapi.json").json()["paths"]
    taken = {
        (path, method): (
            sorted(parameter["name"] for parameter in about.get("parameters", ())),
            sorted(about.get("requestBody", {}).get("content", ())),
        )
        for path, methods in paths.items()
        for method, about in methods.items()
    }
    assert taken == {
        ("/v1/segment", "post"): (["answer", "height", "width"], ["image/png"]),
        ("/v1/reconstruct", "post"): ([], ["image/png"]),
        ("/v1/model", "get"): ([], []),
        ("/healthz", "get"): ([], []),
        ("/readyz", "get"): ([], []),
        ("/metrics", "get"): ([], []),
    }


def test_no_pages_that_load_scripts_of_others(client: TestClient) -> None:
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
