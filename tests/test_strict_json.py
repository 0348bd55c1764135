"""JSON that is bounded and means one thing; what is refused is refused before anything is built."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.strict_json import parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_json_writes_is_read_as_it_was(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=True, indent=1)):
        assert parse_json(text, max_bytes=10**6, max_depth=64) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON: Expecting value"),
        ("{'a': 1}", "no JSON"),
        ("NaN", "NaN is no JSON"),
        ("[-Infinity]", "-Infinity is no JSON"),
        ('{"a": 1, "a": 1}', "a name stands there twice"),
        ('{"a": {"b": 1, "b": 2}}', "a name stands there twice"),
        ("9" * 21, "more than 20 digits"),
        ("[" * 17 + "]" * 17, "brackets deeper than 16"),
        ("[" * 10**5, "brackets deeper than 16"),
        ('{"a":' * 17 + "1" + "}" * 17, "brackets deeper than 16"),
        ('"' + "[" * 100, "no JSON: Unterminated string"),
        ('"\\"[[[[[[[[[[[[[[[[[[[[', "no JSON: Unterminated string"),
        ("1" * 1001, "1001 bytes, expected at most 1000"),
        (b"\xff", "no UTF-8 text"),
        ("[]".encode("utf-16"), "no UTF-8 text"),
    ],
)
def test_what_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("(", r"\(")):
        parse_json(text, max_bytes=10**6 if len(text) > 10**4 else 1000)


@pytest.mark.parametrize("text", ['"[[[[[[[[[[[[[[[[[[[["', '["\\\\", "\\"[[[[[[[[[[[[[[[[[[[["]'])
def test_brackets_in_texts_are_no_brackets(text: str) -> None:
    assert parse_json(text, max_bytes=1000) == json.loads(text)
