"""What is planted is found, in every encoding and at every offset; what is not planted is not."""

import base64
import io
import json

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_ppseg.audit.key_search import (
    WORD,
    anchor,
    needles_of_embedding,
    needles_of_key,
    needles_of_permutation,
    numbers_in,
    search,
)

SECRET = np.random.default_rng(0).bytes(32)
OTHER = np.random.default_rng(1).bytes(32)
KEY_FORMS = {
    "raw": bytes,
    "hex": lambda data: data.hex().encode(),
    "HEX": lambda data: data.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64 of a URL": base64.urlsafe_b64encode,
    "JSON of hex": lambda data: json.dumps({"key": data.hex()}).encode(),
    "JSON of bytes": lambda data: json.dumps(list(data), indent=1).encode(),
    "YAML of bytes": lambda data: yaml.safe_dump({"key": list(data)}).encode(),
    "repr": lambda data: repr(list(data)).encode(),
}


def found(haystack, needles):
    """Whether a haystack holds a needle and zeros beside it do not."""
    return search([("clean", bytes(1000)), ("planted", haystack)], needles) == {"planted"}


@pytest.mark.parametrize("prefix", [b"", b"a", b"ab", b"abc"])
@pytest.mark.parametrize("form", KEY_FORMS)
def test_a_planted_key_is_found_in_every_encoding(form, prefix):
    planted = b"before " + KEY_FORMS[form](prefix + SECRET + b"tail") + b" after"
    assert found(planted, needles_of_key(SECRET))
    assert not search([("other", planted)], needles_of_key(OTHER))


@pytest.mark.parametrize("order", ["big", "little"])
def test_a_key_written_as_one_number_is_found(order):
    planted = f'{{"key": {int.from_bytes(SECRET, order)}}}'.encode()
    assert found(planted, needles_of_key(SECRET))
    assert not search([("other", planted)], needles_of_key(OTHER))


@given(before=st.binary(max_size=40), after=st.binary(max_size=40))
@settings(max_examples=200)
def test_a_key_is_found_at_any_offset(before, after):
    assert found(before + SECRET + after, needles_of_key(SECRET))


@pytest.mark.parametrize("missing", [0, 15, 31])
def test_a_key_with_a_byte_changed_is_not_the_key(missing):
    changed = bytearray(SECRET)
    changed[missing] ^= 1
    assert not search([("changed", bytes(changed))], needles_of_key(SECRET))
    assert not search([("cut", SECRET[:-1])], needles_of_key(SECRET))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64", ">i4"])
def test_a_planted_permutation_is_found(dtype):
    permutation = np.random.default_rng(0).permutation(192)
    array = permutation.astype(dtype)
    saved = io.BytesIO()
    np.save(saved, array)
    other = np.random.default_rng(1).permutation(192)
    for form in (
        array.tobytes(),
        saved.getvalue(),
        base64.b64encode(b"x" + array.tobytes()),
        array.tobytes().hex().encode(),
        json.dumps(permutation.tolist()).encode(),
        json.dumps(permutation.tolist(), separators=(",", ":")).encode(),
        json.dumps({"order": permutation.tolist()}, indent=1).encode(),
        yaml.safe_dump({"order": permutation.tolist()}).encode(),
    ):
        assert found(form, needles_of_permutation(permutation))
        assert found(form, needles_of_permutation(np.argsort(permutation)))
        assert not search([("another", form)], needles_of_permutation(other))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_planted_embedding_is_found(dtype, order):
    weight = np.random.default_rng(0).standard_normal((32, 192)).astype("float32")
    forms = [weight.astype(dtype).tobytes(order)]
    if dtype == "float32":
        forms += [forms[0].hex().encode(), base64.b64encode(b"x" + forms[0])]
    other = np.random.default_rng(1).standard_normal((32, 192)).astype("float32")
    for form in forms:
        assert found(b"before" + form, needles_of_embedding(weight))
        assert not search([("another", form)], needles_of_embedding(other))


def test_a_bias_is_found_as_a_row():
    bias = np.random.default_rng(0).standard_normal((1, 64)).astype("float32")
    assert found(b"abc" + bias.tobytes(), needles_of_embedding(bias))


@pytest.mark.parametrize("seed", range(2))
def test_random_bytes_give_no_alarm(seed):
    rng = np.random.default_rng(10 + seed)
    needles = [n for _ in range(200) for n in needles_of_key(rng.bytes(32))]
    needles += [n for _ in range(50) for n in needles_of_permutation(rng.permutation(192))]
    texts = [rng.bytes(1 << 20), rng.bytes(1 << 19).hex().encode(), bytes(1 << 18)]
    texts.append(json.dumps(rng.integers(0, 256, 1 << 16).tolist()).encode())
    assert search(((str(k), text) for k, text in enumerate(texts)), needles) == set()


def test_what_is_too_short_or_empty_holds_nothing():
    texts = [("empty", b""), ("short", SECRET[: WORD - 1]), ("half", SECRET[:16])]
    assert search(texts, needles_of_key(SECRET)) == set()
    assert search([("all", SECRET)], []) == set()


def test_numbers_are_all_that_is_left_of_a_text():
    assert numbers_in(b'{"a": [1, 23], "b4": "5-6"}\n') == b"1 23 4 5 6"


def test_an_anchor_is_taken_where_bytes_differ():
    assert anchor(bytes(20) + bytes(range(1, 9)) + bytes(4)) in range(13, 28)
    assert anchor(SECRET[:8]) == 0
