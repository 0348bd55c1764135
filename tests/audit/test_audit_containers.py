"""Bytes that a container hides are brought to light, however deep; broken ones are taken whole."""

import base64
import gzip
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from fl_ppseg.audit.containers import MAX_DEPTH, artefacts, opened
from fl_ppseg.audit.key_search import needles_of_key, needles_of_permutation, search

SECRET = np.random.default_rng(0).bytes(32)
ORDER = np.random.default_rng(0).permutation(192)


def note(secret):
    """A text that compresses: random bytes alone are stored as they are."""
    return b"the key is %b, keep it" % secret.hex().encode() + bytes(200)


def zipped(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/member", content)
    return buffer.getvalue()


def npz(content):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.frombuffer(content, np.uint8))
    return buffer.getvalue()


def png(content):
    buffer = io.BytesIO()
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels.ravel()[100 : 100 + len(content)] = np.frombuffer(content, np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


HIDING = {
    "zip": lambda data: zipped(note(data)),
    "gzip": lambda data: gzip.compress(note(data)),
    "npz": lambda data: npz(note(data)),
    "png": lambda data: png(note(data)),
    "data URI of png": lambda data: (
        b'<img src="data:image/png;base64,%b">' % base64.b64encode(png(note(data)))
    ),
    "base64 of gzip in JSON": lambda data: json.dumps(
        {"blob": base64.b64encode(gzip.compress(note(data))).decode()}
    ).encode(),
    "escapes in JSON": lambda data: (
        json.dumps({"note": "\n".join([data.hex()[:30], data.hex()[30:]])})
        .replace("\\n", "")
        .replace("a", "\\u0061")
        .encode()
    ),
    "escapes in JSON lines": lambda data: (
        b'{"round": 1}\n{"key": "%b"}\n' % data.hex().replace("b", "\\u0062").encode()
    ),
    "zip in gzip in zip": lambda data: zipped(gzip.compress(zipped(note(data)))),
}


@pytest.mark.parametrize("container", HIDING)
def test_a_hidden_key_is_found(container):
    hidden = HIDING[container](SECRET)
    needles = list(needles_of_key(SECRET))
    assert search([("as it is", hidden)], needles) == set()
    assert search(opened("file", hidden), needles)
    clean = HIDING[container](np.random.default_rng(1).bytes(32))
    assert search(opened("file", clean), needles) == set()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["npy", "safetensors", "json"])
def test_whole_numbers_in_floating_point_are_found(kind, dtype):
    order = ORDER.astype(dtype)
    texts = {"npy": npy(order), "safetensors": save({"order": order}),
             "json": json.dumps(order.astype(float).tolist()).encode()}  # fmt: skip
    needles = list(needles_of_permutation(ORDER))
    assert search([("as it is", texts[kind])], needles) == set()
    assert search(opened("file", texts[kind]), needles)


def test_what_is_inside_is_named_by_its_way():
    names = [name for name, _ in opened("a.zip", zipped(gzip.compress(SECRET)))]
    assert names == ["a.zip", "a.zip!folder/member", "a.zip!folder/member!gzip"]


def test_a_container_is_not_opened_for_ever():
    content = note(SECRET)
    for _ in range(MAX_DEPTH + 1):
        content = gzip.compress(content)
    assert search(opened("file", content), needles_of_key(SECRET)) == set()
    assert search(opened("file", content, MAX_DEPTH + 1), needles_of_key(SECRET))


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"PK\x03\x04 no zip",
        b"\x1f\x8b no gzip",
        b"\x89PNG\r\n\x1a\n no picture",
        b"\x93NUMPY no array",
        b"\x08\0\0\0\0\0\0\0{ no tensors",
        b'{"no": json',
        b"[" * 100_000,
        zipped(b"x" * 1000)[:-30],
        gzip.compress(np.random.default_rng(2).bytes(1000))[:-100],
    ],
)
def test_broken_containers_are_taken_as_they_are(broken):
    assert next(opened("file", broken)) == ("file", broken)
    assert search(opened("file", broken + SECRET), needles_of_key(SECRET))


def test_a_picture_larger_than_any_of_ours_is_taken_as_it_is() -> None:
    """A few kilobytes that unpack to a gigabyte of pixels."""
    file = io.BytesIO()
    Image.new("1", (8200, 8200)).save(file, "PNG")
    assert [name for name, _ in opened("large.png", file.getvalue())] == ["large.png"]


def test_gzip_streams_are_read_one_after_the_other_and_as_far_as_they_go():
    two = gzip.compress(b"one") + gzip.compress(note(SECRET))
    streams = [inner for name, inner in opened("file", two) if name == "file!gzip"]
    assert streams == [b"one", note(SECRET)]
    cut = gzip.compress(note(SECRET) + np.random.default_rng(2).bytes(5000))[:-100]
    assert search(opened("file", cut), needles_of_key(SECRET))


def test_pickled_arrays_are_not_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], object), allow_pickle=True)
    assert len(list(opened("file", buffer.getvalue()))) == 1
    assert not (tmp_path / "sprung").exists()


def test_a_folder_is_searched_without_its_links(tmp_path):
    (tmp_path / "run" / "arm").mkdir(parents=True)
    (tmp_path / "run" / "arm" / "weights.gz").write_bytes(gzip.compress(note(SECRET)))
    (tmp_path / "run" / "log.txt").write_bytes(b"nothing")
    (tmp_path / "vault").write_bytes(SECRET)
    (tmp_path / "run" / "link").symlink_to(tmp_path / "vault")
    names = search(artefacts(tmp_path / "run"), needles_of_key(SECRET))
    assert names == {"arm/weights.gz!gzip"}
