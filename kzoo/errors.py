"""Errors that the caller can mend. The command line shows them as one line."""

import difflib
import re
from collections.abc import Iterable

LONGEST_REASON = 200  # characters


class KzooError(Exception):
    """Base of every error that says what was given, what is accepted and what to do."""


class UnknownNameError(KzooError, KeyError):
    """A model, recipe, tap or preprocessing name that does not exist."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


class UnknownOptionError(KzooError, TypeError):
    """An option that the called thing does not have."""


class InvalidValueError(KzooError, ValueError):
    """An option that exists, with a value it cannot take."""


class WeightsError(KzooError, ValueError):
    """A weights file that is missing, unreadable or does not fit the model."""


class DatasetError(KzooError, ValueError):
    """A dataset that is unknown, absent or not a classification set."""


class ExportError(KzooError, RuntimeError):
    """A model that cannot be exported, or whose file disagrees with Keras."""


class BackendError(KzooError, ImportError):
    """Work that needs TensorFlow, which is not installed or not what Keras computes with."""


class OutputError(KzooError, OSError):
    """An output path that cannot be written."""


class CheckFailed(KzooError, AssertionError):
    """A model that does not do what every model of the zoo must do."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Ends an error message: close matches to `given` among `known`, or nothing.

    >>> did_you_mean("resnet50_cbm", ["resnet50", "resnet50_cbam"])
    "; did you mean 'resnet50_cbam' or 'resnet50'?"
    """
    matches = difflib.get_close_matches(given, list(known), n=3)
    if not matches:
        return ""
    return "; did you mean " + " or ".join(repr(match) for match in matches) + "?"


def explain(error: BaseException) -> str:
    """One line: an error of ours as it is, one of another library with its type, shortened, and what it came from.

    >>> explain(TypeError("no such\\nthing"))
    'TypeError: no such thing'
    """
    if isinstance(error, KzooError):
        return " ".join(str(error).split())
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if len(reason) > LONGEST_REASON:
        reason = f"{reason[:LONGEST_REASON]}…"
    origin = error.__cause__ or error.__context__
    return f"{reason} (from {explain(origin)})" if origin else reason


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """A number and what it is of, such as "1 epoch"; `nouns` is what several are called, if not with an "s".

    >>> counted(1, "class", "classes"), counted(1200, "image")
    ('1 class', '1,200 images')
    """
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def check_choice(what: str, value: object, choices: Iterable[object]) -> None:
    """Raises `InvalidValueError` unless `value` is one of `choices`."""
    choices = list(choices)
    if not any(type(value) is type(choice) and value == choice for choice in choices):  # True is no 1
        accepted = ", ".join(repr(choice) for choice in choices)
        raise InvalidValueError(f"{what}={value!r} is not accepted; use one of {accepted}")


def check_pattern(what: str, pattern: str) -> None:
    """Raises `InvalidValueError` unless `pattern` is a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidValueError(f"{what}={pattern!r} is no regular expression: {error}") from error
