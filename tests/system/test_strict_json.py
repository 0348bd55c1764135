"""JSON that is bounded and means one thing; what is refused is refused before anything is built."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.system.strict_json import parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_a_key_that_comes_twice_is_found_in_one_pass() -> None:
    pairs = [*(f'"{n}": 0' for n in range(100_000)), '"99999": 1']
    began = time.process_time()
    with pytest.raises(ValueError, match="'99999' is given twice"):
        parse_json("{" + ", ".join(pairs) + "}", max_bytes=10**7, max_depth=4)
    assert time.process_time() - began < 5  # to count each key took hours


@given(VALUES)
def test_what_json_writes_is_read_as_it_was(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=True, indent=1)):
        assert parse_json(text, max_bytes=10**6, max_depth=64) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON: Expecting value"),
        ("{'a': 1}", "not JSON"),
        ("NaN", "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ('{"a": 1, "a": 1}', "is given twice"),
        ('{"a": {"b": 1, "b": 2}}', "is given twice"),
        ("9" * 21, "at most 20 digits"),
        ("[" * 65 + "]" * 65, "nested at most 64 deep"),
        ("[" * 10**5, "nested at most 64 deep"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested at most 64 deep"),
        ('"' + "[" * 100, "not JSON: Unterminated string"),
        ('"\\"[[[[[[[[[[[[[[[[[[[[', "not JSON: Unterminated string"),
        ("1" * 1001, "expected at most 1,000 bytes"),
        (b"\xff", "not UTF-8 text"),
        ("[]".encode("utf-16"), "not UTF-8 text"),
    ],
)
def test_what_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("(", r"\(")):
        parse_json(text, max_bytes=10**6 if len(text) > 10**4 else 1000)


@pytest.mark.parametrize("text", ['"[[[[[[[[[[[[[[[[[[[["', '["\\\\", "\\"[[[[[[[[[[[[[[[[[[[["]'])
def test_brackets_in_texts_are_no_brackets(text: str) -> None:
    assert parse_json(text, max_bytes=1000) == json.loads(text)
