"""JSON from anywhere is a value that JSON has, or one error of one line."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from kzoo.errors import InvalidValueError
from kzoo.reading import DEEPEST_JSON, LARGEST_JSON_BYTES, check_type, parse_json, read_json, read_text


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x is no valid JSON: Expecting value"),
        ('{"a": ', "no valid JSON"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number of JSON"),
        ("[1e999]", "1e999 is too large a number"),
        ("1" * 5000, "no valid JSON: Exceeds the limit"),
        ('{"a": {"b": 1, "b": 2}}', "'b' is there twice"),
        (r'["\ud800"]', "no valid JSON: 'utf-8' codec can't encode"),
        (r'{"\udfff": 1}', "no valid JSON"),
        (nested(DEEPEST_JSON + 2), f"nested more than {DEEPEST_JSON} levels deep"),
        (nested(100_000), f"nested more than {DEEPEST_JSON} levels deep"),
    ],
)
def test_what_is_no_json_is_one_error(text, message):
    with pytest.raises(InvalidValueError, match=message) as caught:
        parse_json(text, "x")
    assert len(str(caught.value).splitlines()) == 1


def test_json_is_read_as_it_is(tmp_path):
    (tmp_path / "x.json").write_bytes('\ufeff{"ä": [1, 2.5, null, true, "\\u00e9"]}'.encode())
    assert read_json(tmp_path / "x.json") == {"ä": [1, 2.5, None, True, "é"]}
    assert parse_json(nested(DEEPEST_JSON), "x")


def test_what_is_no_file_is_one_error(tmp_path):
    with pytest.raises(InvalidValueError, match=r"cannot read .*absent\.json: it is an absent file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(InvalidValueError, match="it is no file"):
        read_json(tmp_path)
    with pytest.raises(InvalidValueError, match="it is an absent file"):
        read_json("a\0b")
    (tmp_path / "latin.json").write_bytes(b'"\xe9"')
    with pytest.raises(InvalidValueError, match=r"latin.json: byte 1 is not UTF-8; save it as UTF-8"):
        read_json(tmp_path / "latin.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(LARGEST_JSON_BYTES + 1)  # takes no room on the disk
    with pytest.raises(InvalidValueError, match=r"has 16,777,217 bytes; at most 16,777,216 are read"):
        read_json(tmp_path / "large.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_without_an_end_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "labels.txt")
    with pytest.raises(InvalidValueError, match="it is no file"):
        read_text(tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, (0, -1), (True, 1.0, "1", None)),
        (float, (0, 1.5), (True, "1", None, [1.0])),
        (str | None, ("", None), (0, [], False)),
        (bool, (True,), (0, None)),
        (Literal["a", 1], ("a", 1), ("b", True, 1.0)),
        (tuple[int, ...], ([], [1, 2]), (1, "12", [1, "2"], {"1": 2})),
        (int | tuple[int, int] | None, (1, [1, 2], None), ([1], [1, 2, 3], [1, 2.0])),
        (list[str], ([], ["a"]), (["a", 1], "a", {"a": 1})),
        (dict[str, Any], ({}, {"a": []}), ([], "a", None)),
        (dict[str, int], ({"a": 1},), ({"a": "1"},)),
        (Path | None, ("a/b", None), (1, ["a"])),
        (Annotated[tuple[str, ...], "help"], (["a"],), ([1],)),
    ],
)
def test_values_of_a_type(annotation, good, bad):
    for value in good:
        check_type(value, annotation, "x")
    for value in bad:
        with pytest.raises(InvalidValueError, match="is not accepted; it must be"):
            check_type(value, annotation, "file.json: x")


def test_a_long_value_is_shown_in_part():
    with pytest.raises(InvalidValueError, match=r"x=.{61} is not accepted; it must be int") as caught:
        check_type("a" * 10**6, int, "x")
    assert len(str(caught.value)) < 120
