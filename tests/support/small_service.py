"""A service of a small model, and queries to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import small_setr
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from fl_ppseg.config.cipher_versions import versions_of
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.inference.query_spec import QuerySpec
from fl_ppseg.inference.segmenter import Segmenter
from fl_ppseg.service.app import create_app

SIZE = (32, 64)
PNG = {"Content-Type": "image/png"}
SPEC = QuerySpec(
    key="per-image",
    cipher="shuffle-spatial+negative-positive",
    versions=versions_of("shuffle-spatial+negative-positive"),
    block_size=8,
    scope="per-block",
    image_size=SIZE,
    fit="crop",
)


def segmenter(**changes: Any) -> Segmenter:
    """A small model, and what its queries must be."""
    spec = SPEC.model_copy(update=changes)
    return Segmenter(
        small_setr.tiny(size=SIZE), spec, load_class_table("cityscapes"), "per-image-invariant"
    )


def photograph(size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """(3, H, W) uint8, smooth as images are."""
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    bands = (np.sin(7 * x + 3 * y), np.cos(5 * y), np.sin(9 * x * y + 1))
    return np.stack([127.5 + 120 * band for band in bands]).astype(np.uint8)


def query(size: tuple[int, int] = SIZE, spec: QuerySpec = SPEC) -> NDArray[np.uint8]:
    """(3, H, W) uint8, that image encrypted with a key that nobody keeps."""
    assert spec.cipher is not None and spec.scope is not None
    return encrypt(
        photograph(size),
        SubKey.generate(),
        spec.cipher,
        block_size=spec.block_size,
        scope=spec.scope,
    )


def png(image: NDArray[np.uint8], **options: Any) -> bytes:
    """(3, H, W) uint8 -> a PNG."""
    content = BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(content, "PNG", **options)
    return content.getvalue()


def pixels(content: bytes) -> NDArray[np.uint8]:
    """A PNG -> (h, w) or (h, w, 3) uint8."""
    return np.asarray(Image.open(BytesIO(content)))


@contextmanager
def client(model: Segmenter | None = None, **options: Any) -> Iterator[TestClient]:
    """A client of a service that runs in this process."""
    with TestClient(create_app(model or segmenter(), **options)) as found:
        yield found
