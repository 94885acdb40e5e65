"""JSON text: what it reads and writes agrees with the standard library's `json`, and it fails in one way only."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rundlet.errors import BadSpec
from rundlet.jsontext import dumps, escape, loads, show

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.sampled_from([0, 1, 2, 4]))
def test_what_is_written_is_read_back(value: object, indent: int) -> None:
    assert loads(dumps(value, indent).encode(), "x") == value


@given(VALUES, st.sampled_from([1, 2, 4]))
def test_layout_is_that_of_json(value: object, indent: int) -> None:
    assert dumps(value, indent) == json.dumps(value, indent=indent, ensure_ascii=False)
    assert dumps(value) == json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@given(st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape")), st.sampled_from([0, 2]))
def test_a_name_that_is_not_utf_8_is_written_as_utf_8(name: str, indent: int) -> None:
    assert loads(dumps({name: name}, indent).encode(), "x") == {name: name}


@given(VALUES)
def test_reads_what_json_writes(value: object) -> None:
    assert loads(json.dumps(value, indent=3).encode(), "x") == value


@given(st.binary(max_size=40) | st.text('{}[]",:0123456789eE.-+tfn \\u"', max_size=40).map(str.encode))
@example(b"")
@example(b"[1e999]")
@example(b"\xef\xbb\xbf{}")
@example(b'"\\ud800"')
def test_any_bytes_are_a_value_or_a_bad_spec(text: bytes) -> None:
    try:
        value = loads(text, "here")
    except BadSpec as fault:
        assert fault.where == "here"
        assert "\n" not in str(fault)
        assert str(fault)
    else:
        assert value == json.loads(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "line 1 column 1: unexpected end"),
        (b" \n ", "line 2 column 2: unexpected end"),
        (b"{\n  x", "line 2 column 3: expecting property name enclosed in double quotes"),
        (b'{"a": 1,\n "b" 2}', "line 2 column 6: expecting ':' delimiter"),
        (b"{} {}", "line 1 column 4: extra data after the value"),
        (b"[1, tru]", "line 1 column 5: expected a value"),
        (b'"a\x01"', "line 1 column 3: invalid control character"),
        (b"[NaN]", "NaN is not json"),
        (b"[-Infinity]", "-Infinity is not json"),
        (b"[1e400]", "number 1e400 is out of range"),
        (b"1" * 5000, "a number of 5000 digits"),
        (b'"\xff"', "byte 1: not UTF-8 (invalid start byte)"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
    ],
)
def test_malformed(text: bytes, why: str) -> None:
    with pytest.raises(BadSpec) as caught:
        loads(text, "config.json")
    assert (caught.value.where, caught.value.why.lower()) == ("config.json", why.lower())


def test_the_last_of_duplicate_keys_wins() -> None:
    assert loads(b'{"a": 1, "a": 2}', "x") == {"a": 2}


def test_keys_are_separate_between_texts() -> None:
    assert loads(b'{"a": 1}', "x") == {"a": 1}
    assert loads(b'{"b": 1}', "x") == {"b": 1}


def test_numbers_keep_their_kind() -> None:
    values = loads(b"[1, 1.0, 1e3, -0, 18446744073709551616]", "x")
    assert isinstance(values, list)
    assert [type(value) for value in values] == [int, float, float, int, int]
    assert values[-1] == 2**64


@pytest.mark.parametrize("indent", [0, 2])
def test_values_without_a_form_are_refused(indent: int) -> None:
    for value in (b"bytes", {1}, [object()]):
        with pytest.raises(TypeError, match="no json form"):
            dumps(value, indent)
    for number in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"(?i)json"):
            dumps([number], indent)
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ValueError, match=r"(?i)circular|contains itself"):
        dumps(loop, indent)
    assert dumps([1], indent)  # and the encoder is fit for use afterwards
    assert dumps(loop[:0], indent) == "[]"


def test_refused_values_do_not_stay_marked() -> None:
    value = [object()]
    for _ in range(2):
        with pytest.raises(TypeError, match="no json form"):
            dumps(value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "null"), (True, "true"), (False, "false"), (12, "12"), (1.5, "1.5"), ("a\nb", '"a\\nb"'), ([1], "a list"), ({}, "an object")],
)
def test_show(value: object, shown: str) -> None:
    assert show(value) == shown


@given(st.text(max_size=200))
def test_shown_and_escaped_texts_stay_on_one_short_line(text: str) -> None:
    assert show(text).isprintable()
    assert len(show(text)) < 800
    assert escape(text).isprintable()


def test_escape_is_that_of_json_pointers() -> None:
    assert escape("a/b~c") == "a~1b~0c"
