"""The registry: every model of the zoo under its name, as data."""

import fnmatch
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from kzoo.errors import InvalidValueError, UnknownNameError, UnknownOptionError, did_you_mean

CLASSIFICATION, SEGMENTATION, DETECTION = "classification", "segmentation", "detection"


@dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    Attributes:
        name: what `kzoo.build` takes.
        family: the family it belongs to.
        config: frozen dataclass of the family; its fields are the overrides that `build` accepts.
        features: `(x, config) -> {tap: map}`, finest first; the last map is the trunk's output. Models on a backbone
            have `image`, their input, before the taps.
        head: `(maps, num_classes, activation, config) -> predictions` from all of them.
        input_shape: default (height, width, channels).
        num_classes: default.
        task: `"classification"`: a probability for each class of an image, `"segmentation"`: of each of its pixels, or
            `"detection"`: of each of its boxes.
        preprocessing: name of the pixel normalisation, see `kzoo.models.blocks.PREPROCESSING`.
        papers: arXiv numbers.
        narrow: overrides that give a small model of the same kind, for tests.
        narrow_size: side of the images that it takes in tests.
    """

    name: str
    family: str
    config: Any
    features: Callable[[Any, Any], dict[str, Any]]
    head: Callable[[dict[str, Any], int, Any, Any], Any]
    input_shape: tuple[int, int, int]
    num_classes: int
    preprocessing: str
    papers: tuple[str, ...]
    task: str = CLASSIFICATION
    narrow: Mapping[str, Any] = field(default_factory=dict)
    narrow_size: int = 32


_ENTRIES: dict[str, Entry] = {}


def register(entry: Entry) -> None:
    """Adds a model to the zoo.

    Raises:
        ValueError: the name is taken.
    """
    if entry.name in _ENTRIES:
        raise ValueError(f"model {entry.name!r} is registered twice")
    _ENTRIES[entry.name] = entry


def lookup(name: object) -> Entry:
    """The entry called exactly `name`.

    Raises:
        UnknownNameError: no such model; the message lists close matches.
    """
    entries = _registered()
    if not isinstance(name, str) or name not in entries:
        raise UnknownNameError(
            f"unknown model {name!r}{did_you_mean(str(name), entries) or '; kzoo.list_models() shows all'}"
        )
    return entries[name]


def _registered() -> dict[str, Entry]:
    """All entries: the families register theirs when they are imported, which is not before somebody asks."""
    importlib.import_module("kzoo.models")
    return _ENTRIES


def entries(family: str) -> list[Entry]:
    """The models of a family, in the order in which they were registered."""
    return [entry for entry in _registered().values() if entry.family == family]


def configure(entry: Entry, overrides: Mapping[str, Any]) -> Any:
    """The config of `entry` with some fields replaced.

    Raises:
        UnknownOptionError: an override that is no field of the config; the message lists those that are.
        InvalidValueError: a value that a field cannot take. NumPy's integers, numbers and truth values are Python's to
            every field.
    """
    names = [each.name for each in fields(entry.config)]
    for override in overrides:
        if override not in names:
            raise UnknownOptionError(
                f"{entry.name} has no option {override!r}; its options are {', '.join(names)}"
                f"{did_you_mean(override, names)}"
            )
    return replace(entry.config, **{name: _plain(value) for name, value in overrides.items()})


def _plain(value: Any) -> Any:
    """NumPy's integers, numbers and truth values as Python's, inside tuples and lists too."""
    if isinstance(value, np.generic):
        return value.item()
    return type(value)(map(_plain, value)) if type(value) in (tuple, list) else value


def list_models(pattern: str = "*") -> list[str]:
    """Names of the zoo that match a shell-style pattern, sorted.

    Example:
        >>> list_models("resnet50*_cbam")
        ['resnet50_cbam', 'resnet50_v1_cbam', 'resnet50_v2_cbam']
    """
    if not isinstance(pattern, str):
        raise InvalidValueError(f"pattern={pattern!r} must be text, such as 'resnet50*'")
    return sorted(fnmatch.filter(_registered(), pattern))


def select_models(patterns: Iterable[str]) -> list[str]:
    """Names that match any of some patterns, each once, in the order of the patterns.

    Raises:
        InvalidValueError: no pattern.
        UnknownNameError: one that matches nothing.
    """
    selected = []
    for pattern in patterns:
        names = list_models(pattern)
        if not names:
            meant = did_you_mean(pattern, _ENTRIES)
            raise UnknownNameError(f"no model matches {pattern!r}{meant}; kzoo list shows all")
        selected += names
    if not selected:
        raise InvalidValueError("no model given; name models or patterns such as 'resnet50*'")
    return list(dict.fromkeys(selected))
