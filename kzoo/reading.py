"""Reading files from anywhere: whatever is wrong with one is one error, and what it may claim is limited."""

import json
import math
import types
import typing
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from kzoo.errors import InvalidValueError

LARGEST_JSON_BYTES = 2**24
DEEPEST_JSON = 100  # lists and objects inside each other
EXPANSION = 20  # a packed file may hold this many times its own size ...
SMALL_BYTES = 2**26  # ... and this much besides


def largest_content(file_bytes: int) -> int:
    """How many bytes a file of `file_bytes`, compressed or sparse inside, may declare that it holds."""
    return EXPANSION * file_bytes + SMALL_BYTES


def read_bytes(path: str | Path, largest: int | None = None) -> bytes:
    """The content of a file.

    Args:
        path: of a regular file; pipes and devices have no end.
        largest: of its size in bytes; None for any.

    Raises:
        InvalidValueError: it is absent, no regular file, too large or cannot be read.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise InvalidValueError(f"cannot read {path}: it is {'no' if path.exists() else 'an absent'} file")
        size = path.stat().st_size
        if largest is not None and size > largest:
            raise InvalidValueError(f"{path} has {size:,} bytes; at most {largest:,} are read")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if isinstance(error, InvalidValueError):
            raise
        raise InvalidValueError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def read_text(path: str | Path, largest: int = LARGEST_JSON_BYTES) -> str:
    """The content of a text file in UTF-8, with or without a byte order mark.

    Raises:
        InvalidValueError: as `read_bytes`, or it is not UTF-8.
    """
    try:
        return read_bytes(path, largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"cannot read {path}: byte {error.start} is not UTF-8; save it as UTF-8") from error


def read_json(path: str | Path) -> Any:
    """The value that a JSON file holds.

    Raises:
        InvalidValueError: what `parse_json` raises, or it cannot be read.

    Example:
        >>> read_json("report.json")["dataset"]["classes"]
        ['cat', 'dog']
    """
    return parse_json(read_text(path), str(path))


def parse_json(text: str, source: str) -> Any:
    """The value that a text in JSON stands for.

    Args:
        text: of a file.
        source: what the errors call it.

    Raises:
        InvalidValueError: it is no JSON as the standard has it: no NaN or infinite number, no name twice in an
            object, at most `DEEPEST_JSON` levels, and text that can be written again.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse_constant, parse_float=_finite)
        _check_depth(value)
        text.encode("utf-8")
    except RecursionError as error:
        raise InvalidValueError(f"{source} is nested more than {DEEPEST_JSON} levels deep") from error
    except ValueError as error:  # JSON, UTF-8, a number of thousands of digits
        raise InvalidValueError(f"{source} is no valid JSON: {' '.join(str(error).split())}") from error
    return value


def parse_xml(content: bytes, source: str) -> ElementTree.Element:
    """The root of an XML document.

    A document type is refused: entities, which a few lines of it can make billions of, and files and addresses that
    it may name are then out of the world, and what describes a picture has none.

    Args:
        content: of a file.
        source: what the errors call it.

    Raises:
        InvalidValueError: it is no XML, or declares a document type.

    Example:
        >>> parse_xml(b"<size><width>640</width></size>", "a.xml").findtext("width")
        '640'
    """
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def refuse(*_):
        raise InvalidValueError(f"{source} declares a document type (<!DOCTYPE), which is not read; remove it")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, ValueError, LookupError, AssertionError) as error:  # LookupError: an unknown encoding
        if isinstance(error, InvalidValueError):
            raise
        raise InvalidValueError(f"{source} is no valid XML: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise ValueError(f"{twice[0]!r} is there twice")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _check_depth(value: Any) -> None:
    """Raises `RecursionError` for too many levels, and `ValueError` for half a character, which `\\ud800` makes."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST_JSON:
            raise RecursionError
        depth += 1
        inside = []
        for each in level:
            if isinstance(each, dict):
                inside += [*each, *each.values()]
            elif isinstance(each, list):
                inside += each
            elif isinstance(each, str):
                each.encode("utf-8")
        level = inside


def read_report(model: Path) -> dict[str, Any]:
    """The report that a recipe left beside a model's file; empty where there is none, or somebody else's.

    Raises:
        InvalidValueError: it is no JSON, or the classes in it are no names.
    """
    path = model.with_name("report.json")
    report = read_json(path) if path.is_file() else {}
    parts = ("recipe", "dataset")
    if not isinstance(report, dict) or not all(isinstance(report.get(part, {}), dict) for part in parts):
        return {}
    if "classes" in report.get("dataset", {}):
        check_type(report["dataset"]["classes"], list[str], f"{path}: classes of the dataset")
    return report


def as_tuple(value: Any) -> Any:
    """A list of JSON as a tuple; anything else as it is."""
    return tuple(value) if isinstance(value, list) else value


def check_type(value: object, annotation: Any, what: str) -> None:
    """Raises `InvalidValueError` unless a value from a JSON file is of a type.

    Args:
        value: what `read_json` gave; a list stands for a tuple, text for a path, a whole number for a float.
        annotation: a type, as fields of dataclasses have it.
        what: the error's name for the value.

    Example:
        >>> check_type(3, tuple[str, ...], "report.json: classes")
        InvalidValueError: report.json: classes=3 is not accepted; it must be tuple[str, ...]
    """
    if not _fits(value, annotation):
        wanted = getattr(annotation, "__name__", None) if isinstance(annotation, type) else None
        shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}…"
        raise InvalidValueError(f"{what}={shown} is not accepted; it must be {_show(annotation, wanted)}")


def _show(annotation: Any, name: str | None) -> str:
    return str(annotation).replace("typing.", "") if typing.get_origin(annotation) or name is None else name


def _fits(value: object, annotation: Any) -> bool:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return True
    if origin is typing.Annotated:
        return _fits(value, inside[0])
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in inside)
    if origin is typing.Literal:
        return any(type(value) is type(each) and value == each for each in inside)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return False
        kinds = inside[:1] * len(value) if inside[-1] is ... else inside
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if origin is list:
        return isinstance(value, list) and all(_fits(each, inside[0]) for each in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(
            _fits(name, inside[0]) and _fits(each, inside[1]) for name, each in value.items()
        )
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is Path:
        return isinstance(value, (str, Path))
    if annotation is float:
        return type(value) in (int, float)
    return type(value) is annotation
