"""A model with encrypted labels: its answers come in the order of the ciphertext, and the page puts
them back in place."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import small_service
import torch
from chromium import needs_chromium
from PIL import Image
from recorded_service import RecordedService, recorded_service
from watched_page import watched_page

import fl_ppseg
from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.inference.segmenter import Segmenter
from fl_ppseg.service.app import create_app
from fl_ppseg.setr.build import build_setr

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_chromium

MODEL = {
    "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "decoder": "naive",
    "decoder_channels": 16, "weights": None, "invariant": "pixel-magnitudes", "pixel_head": True,
}  # fmt: skip


def model(fit: str) -> Segmenter:
    network = build_setr(ModelConfig.model_validate(MODEL), 19, small_service.SIZE, seed=0)
    generator = torch.Generator().manual_seed(0)
    for tensor in network.parameters():
        tensor.data += 0.3 * torch.randn(tensor.shape, generator=generator)
    spec = small_service.SPEC.model_copy(update={"answers": "permuted", "fit": fit})
    return Segmenter(network, spec, load_class_table("cityscapes"), "labels")


@pytest.fixture(scope="module", params=["resize", "crop"])
def served(request: pytest.FixtureRequest) -> Iterator[tuple[Segmenter, RecordedService]]:
    own = model(request.param)
    with recorded_service(create_app(own)) as found:
        yield own, found


def test_the_page_shows_labels_in_place_whatever_its_key_was(
    browser: "Browser", served: tuple[Segmenter, RecordedService]
) -> None:
    own, service = served
    size = (32, 64) if own.spec.fit == "resize" else (45, 70)
    picture = small_service.photograph(size)
    query = fl_ppseg.encrypt(picture, own.spec)
    sent = own.segment_batch(query.pixels[None])[0].labels
    expected = query.restored(sent)
    assert (sent[: size[0], : size[1]] != expected).any()
    file = {"name": "a.png", "mimeType": "image/png", "buffer": small_service.png(picture)}
    with watched_page(browser, service.url) as watched:
        watched.choose(file)
        watched.page.wait_for_selector("#kept:visible")
        watched.page.click("#send")
        watched.page.wait_for_selector("#result:visible")
        with watched.page.expect_download() as download:
            watched.page.click("#save-labels")
        with Image.open(Path(download.value.path())) as found:
            np.testing.assert_array_equal(np.asarray(found), expected)
        assert watched.complaints == []


def test_blocks_whose_places_fill_no_byte_are_refused_in_words(browser: "Browser") -> None:
    own = model("resize")
    own.spec = own.spec.model_copy(update={"block_size": 32})
    with recorded_service(create_app(own)) as service:
        page = browser.new_page()
        page.goto(service.url)
        page.wait_for_selector("text=Ask from Python instead")
        page.close()


def test_what_has_no_meaning_in_that_order_is_refused() -> None:
    own = model("resize")
    body = small_service.png(fl_ppseg.encrypt(small_service.photograph(), own.spec).pixels)
    with small_service.client(own) as client:
        for asked in ("?answer=polygons", "?height=64&width=128"):
            found = client.post(f"/v1/segment{asked}", content=body, headers=small_service.PNG)
            assert found.status_code == 422 and "order of the ciphertext" in found.json()["detail"]
        found = client.post("/v1/segment", content=body, headers=small_service.PNG)
        assert found.status_code == 200
