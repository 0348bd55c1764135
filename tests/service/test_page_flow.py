"""The whole way of a picture through the page, and the log of what left the browser."""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import small_service
from chromium import in_page, needs_chromium
from PIL import Image
from recorded_service import RecordedService, recorded_service
from watched_page import KEY, WatchedPage, watched_page

from fl_ppseg.crypto.ciphers.encryption import decrypt, encrypt
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.service.app import create_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_chromium

SEGMENTER = small_service.segmenter(fit="resize")
SPEC = SEGMENTER.spec
PICTURE = small_service.photograph()
FILE = {"name": "street.png", "mimeType": "image/png", "buffer": small_service.png(PICTURE)}
HOW: dict[str, Any] = {"block_size": SPEC.block_size, "scope": SPEC.scope}


def mirrored(query: np.ndarray) -> np.ndarray:
    """In place of an attacker's network."""
    return query[:, :, ::-1].copy()


@pytest.fixture
def service() -> Iterator[RecordedService]:
    with recorded_service(create_app(SEGMENTER, attack=mirrored)) as found:
        yield found


@pytest.fixture
def watched(browser: "Browser", service: RecordedService) -> Iterator[WatchedPage]:
    with watched_page(browser, service.url, fixed_keys=True) as found:
        yield found
        assert found.complaints == []


def pixels(file: bytes) -> np.ndarray:
    """A PNG of RGB -> (3, H, W)."""
    with Image.open(BytesIO(file)) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture).transpose(2, 0, 1)


def shown(watched: WatchedPage, selector: str) -> np.ndarray:
    """The pixels that an image or a canvas of the page shows, (h, w, 4)."""
    height, width, data = in_page(
        watched.page,
        """const shown = document.querySelector(values[0]);
        await shown.decode?.();
        const { width, height } = await createImageBitmap(shown);
        const canvas = Object.assign(document.createElement("canvas"), { width, height });
        const context = canvas.getContext("2d");
        context.drawImage(shown, 0, 0);
        return [height, width, new Uint8Array(context.getImageData(0, 0, width, height).data)];""",
        selector,
    )
    return np.frombuffer(data, np.uint8).reshape(height, width, 4)


def shows(watched: WatchedPage, selector: str, image: np.ndarray) -> bool:
    """Whether an image of the page has exactly these pixels, (3, H, W)."""
    return np.array_equal(shown(watched, selector)[..., :3], image.transpose(1, 2, 0))


def decrypted(body: bytes) -> np.ndarray:
    """What a request held, under the key that the browser was made to draw."""
    return decrypt(pixels(body), SubKey.from_bytes(KEY), SPEC.cipher or "", **HOW)


def send(watched: WatchedPage) -> None:
    watched.page.click("#send")
    watched.page.wait_for_selector("#result:visible")


def test_one_request_leaves_with_the_ciphertext_that_python_makes_and_nothing_else(
    watched: WatchedPage, service: RecordedService
) -> None:
    watched.choose(FILE)
    assert service.posted() == [], "sent before anybody asked for it"
    assert "Not sent yet" in watched.text("#gets-caption")
    send(watched)
    (request,) = service.posted()
    assert request.path == "/v1/segment" and b"content-type: image/png" in request.raw
    assert shows(watched, "#ciphertext", pixels(request.body)), "shown is not what was sent"
    expected = encrypt(PICTURE, SubKey.from_bytes(KEY), SPEC.cipher or "", **HOW)
    np.testing.assert_array_equal(pixels(request.body), expected)
    assert not np.array_equal(expected, PICTURE)
    assert watched.page.evaluate("asked") == [["HMAC", 256, False, "sign"]]
    assert "Sent." in watched.text("#gets-caption")


def test_no_plain_pixel_and_no_byte_of_the_key_reaches_the_service(
    watched: WatchedPage, service: RecordedService
) -> None:
    watched.choose(FILE)
    send(watched)
    watched.page.check("#attack-switch")
    watched.page.wait_for_selector("#restored:visible")
    secrets = [KEY, KEY[:8], KEY[::-1], *stream_keys(SPEC.cipher or "")]
    forms = [form for each in secrets for form in (each, each.hex().encode(), bare(each))]
    rows = [PICTURE.transpose(1, 2, 0)[y].tobytes() for y in range(PICTURE.shape[1])]
    rows += [PICTURE[c, y].tobytes() for c in range(3) for y in range(PICTURE.shape[1])]
    assert len(service.posted()) == 2
    for request in service.requests:
        content = request.everything
        if request.body:
            content += pixels(request.body).transpose(1, 2, 0).tobytes()
        assert FILE["buffer"] not in content and FILE["buffer"][40:140] not in content
        assert not [form for form in forms if form in content or form.upper() in content]
        assert not [row for row in rows if row in content]
        assert b"street" not in content, "the name of the file was sent"


def stream_keys(cipher: str) -> list[bytes]:
    """What the page derives from the key, and uses as the keys of ChaCha20."""
    length = 3 * SPEC.block_size**2
    names = {"negative-positive": "negative-positive/v2"}
    found = []
    for step, name in enumerate(cipher.split("+")):
        label = f"{names.get(name, name)}/{SPEC.scope}/length={length}/step={step}/attempt=0"
        fields = [b"fl_ppseg/v1/stream", label.encode()]
        info = b"".join(len(each).to_bytes(4, "big") + each for each in fields)
        found.append(hmac.digest(KEY, info + b"\x01", hashlib.sha256))
        assert SubKey.from_bytes(KEY).stream(label.encode(), 64)  # the label is the cipher's own
    return found


def bare(secret: bytes) -> bytes:
    """In base64, without what depends on the length."""
    return base64.b64encode(secret)[:-4]


def test_nothing_is_asked_of_others_and_nothing_is_stored(
    watched: WatchedPage, service: RecordedService
) -> None:
    watched.page.click("#samples button >> nth=1")
    watched.page.wait_for_selector("#key:visible")
    send(watched)
    addresses = [urlsplit(url) for url in watched.urls if not url.startswith(("blob:", "data:"))]
    assert {f"{each.scheme}://{each.netloc}/" for each in addresses} == {service.url}
    paths = [each.path for each in addresses]
    assert len(paths) > 15 and paths.count("/v1/segment") == 1
    assert all(
        re.match(r"/$|/page/[a-z0-9/]+\.[a-z]+$|/v1/(model|segment)$", path) for path in paths
    )
    assert [url for url in watched.urls if "?" in url] == [
        f"{service.url}v1/segment?answer=both&height=256&width=512"
    ]
    stored = in_page(
        watched.page,
        """return [localStorage.length, sessionStorage.length, document.cookie,
            (await indexedDB.databases()).length, (await caches.keys()).length,
            (await navigator.serviceWorker.getRegistrations()).length];""",
    )
    assert stored == [0, 0, "", 0, 0, 0]
    assert watched.page.context.cookies() == []
    assert not any(b"cookie:" in request.raw.lower() for request in service.requests)


def test_the_answer_is_the_models_over_the_photograph(watched: WatchedPage) -> None:
    watched.choose(FILE)
    send(watched)
    query = encrypt(PICTURE, SubKey.from_bytes(KEY), SPEC.cipher or "", **HOW)
    (expected,) = SEGMENTER.segment_batch(query[None], PICTURE.shape[1:])
    drawn = shown(watched, "#map")
    np.testing.assert_array_equal(drawn[..., :3], SEGMENTER.classes.colourise(expected.labels))
    assert (drawn[..., 3] == 255).all()
    shares = np.bincount(expected.labels.ravel()) / expected.labels.size
    names = [SEGMENTER.classes.names[k] for k in np.argsort(-shares, kind="stable") if shares[k]]
    assert watched.page.locator("#legend span").all_inner_texts() == names
    told = [
        float(text.strip("<% ")) for text in watched.page.locator("#legend b").all_inner_texts()
    ]
    np.testing.assert_allclose(told, 100 * np.sort(shares)[::-1][: len(told)], atol=0.51)
    watched.page.check("#view-confidence", force=True)
    grey = np.rint(255 * expected.confidence).astype(int)
    bright = shown(watched, "#map")[..., :3].astype(int).sum(-1)
    order = np.argsort(grey, axis=None)
    assert (np.diff(bright.ravel()[order]) >= -1).all(), "what is surer is not brighter"


def test_a_class_is_highlighted_by_focus_and_held_by_a_press(watched: WatchedPage) -> None:
    watched.choose(FILE)
    send(watched)
    first = watched.page.locator("#legend button").first
    everything = shown(watched, "#map")
    first.focus()
    lit = shown(watched, "#map")
    assert 0 < (lit[..., 3] == 255).sum() < lit[..., 3].size
    watched.page.keyboard.press("Enter")
    watched.page.focus("#opacity")
    assert first.get_attribute("aria-pressed") == "true"
    np.testing.assert_array_equal(shown(watched, "#map"), lit)
    first.click()
    watched.page.mouse.move(0, 0)
    watched.page.focus("#opacity")
    np.testing.assert_array_equal(shown(watched, "#map"), everything)


def test_each_key_serves_once(browser: "Browser", service: RecordedService) -> None:
    with watched_page(browser, service.url) as watched:
        watched.choose(FILE)
        first = shown(watched, "#ciphertext")
        assert "Key forgotten" in watched.text("#key")
        send(watched)
        before = watched.page.get_attribute("#ciphertext", "src")
        watched.page.click("#again")
        watched.page.wait_for_selector(f'#ciphertext:not([src="{before}"])')
        second = shown(watched, "#ciphertext")
        assert not watched.page.is_visible("#result"), "the answer to another ciphertext is shown"
        assert watched.complaints == []
    assert not np.array_equal(first, second)
    assert len(service.posted()) == 1


def test_the_switch_shows_what_the_attack_restores_of_what_is_sent(
    watched: WatchedPage, service: RecordedService
) -> None:
    watched.choose(FILE)
    watched.page.check("#attack-switch")
    watched.page.wait_for_selector("#restored:visible")
    (request,) = service.posted()
    assert request.path == "/v1/reconstruct"
    np.testing.assert_array_equal(decrypted(request.body), PICTURE)
    assert shows(watched, "#restored", mirrored(pixels(request.body)))
    assert "mid-grey" in watched.text("#remains") and "restores" in watched.text("#gets-caption")
    assert not watched.page.is_visible("#ciphertext")
    watched.page.uncheck("#attack-switch")
    assert watched.page.is_visible("#ciphertext") and not watched.page.is_visible("#restored")


def test_without_an_attack_network_there_is_no_switch(browser: "Browser") -> None:
    with (
        recorded_service(create_app(SEGMENTER)) as service,
        watched_page(browser, service.url) as watched,
    ):
        watched.choose(FILE)
        assert not watched.page.is_visible("#attack")


def test_pictures_of_any_size_are_padded_for_models_that_take_them(browser: "Browser") -> None:
    picture = small_service.photograph((50, 90))
    file = FILE | {"buffer": small_service.png(picture)}
    with (
        recorded_service(create_app(small_service.segmenter(fit="crop"))) as service,
        watched_page(browser, service.url, fixed_keys=True) as watched,
    ):
        watched.choose(file)
        send(watched)
        (request,) = service.posted()
        plain = decrypted(request.body)
        assert plain.shape == (3, 56, 96)
        np.testing.assert_array_equal(plain[:, 3:53, 3:93], picture)
        assert (plain[:, :3] == 127).all() and (plain[:, 53:] == 127).all()
        assert shown(watched, "#map").shape == (50, 90, 4)
        assert watched.complaints == []


def test_a_turned_jpeg_and_a_transparent_png_become_what_one_sees(
    watched: WatchedPage, service: RecordedService
) -> None:
    upright = Image.new("RGB", (64, 32), "white")
    upright.paste("black", (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    content = BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(content, "JPEG", quality=100, exif=exif)
    clear = BytesIO()
    alpha = Image.new("RGBA", (64, 32), (0, 0, 0, 0))
    alpha.paste((0, 0, 0, 255), (0, 0, 32, 32))
    alpha.save(clear, "PNG")
    for kind, file in (("image/jpeg", content), ("image/png", clear)):
        watched.choose({"name": "a", "mimeType": kind, "buffer": file.getvalue()})
        watched.page.wait_for_selector("#send:enabled")
        send(watched)
        plain = decrypted(service.posted()[-1].body).astype(int)
        assert np.abs(plain - np.asarray(upright, int).transpose(2, 0, 1)).max() <= 4
