"""The command line of a recipe: every field is a flag, every mistake one line and exit code 2."""

import contextlib
import errno
import io
import logging
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro
from PIL import Image

from kzoo.errors import KzooError
from kzoo.escape import printable
from kzoo.train.loop import train
from kzoo.train.recipe import Recipe

T = TypeVar("T")
USER_ERROR, INTERRUPTED = 2, 130
DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}


def parse(form: Callable[..., T], args: Sequence[str], prog: str, **options) -> T:
    """`tyro.cli`, with mistakes as one line on standard error."""
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            return tyro.cli(form, args=list(args), prog=prog, **options)
    except SystemExit as stop:
        if stop.code == USER_ERROR:
            fail(f"{_first_paragraph(caught.getvalue())} (see {prog} --help)")
        raise


def _first_paragraph(box: str) -> str:
    """The message of a boxed error, without its title and the help behind it."""
    box = re.sub(r"\x1b\[[0-9;]*m", "", box)
    parts = [[]]
    for line in box.splitlines():
        text = line.strip("│ ")
        if text.startswith("╭") or (text and not text.strip("─-╰╯")):  # a title in its frame, or a rule
            parts.append([])
        elif text:
            parts[-1].append(text)
    parts = [" ".join(part) for part in parts if part]
    # without Unicode the title stands before the first rule, as a paragraph of its own
    message = parts[0] if "╭" in box or len(parts) == 1 else parts[1]
    meant = re.search(r"Perhaps you meant:[^-]*(?:-{3,}[^-]*)?(--[\w-]+)", box)
    return message + (f"; did you mean {meant[1]}?" if meant else "")


def fail(message: str) -> None:
    """Ends the process with one line and exit code 2."""
    print(f"kzoo: {printable(' '.join(message.split()))}", file=sys.stderr)
    raise SystemExit(USER_ERROR)


class _Warnings(logging.Handler):
    """Shows what kzoo warns of, a line each, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"kzoo: warning: {printable(record.getMessage())}", file=sys.stderr)


@contextlib.contextmanager
def _shown_warnings():
    log, handler = logging.getLogger("kzoo"), _Warnings(logging.WARNING)
    propagate, log.propagate = log.propagate, False  # a library may have given the root a handler that prints it too
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit of kzoo.images says it
            yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate


@contextlib.contextmanager
def user_errors():
    """Turns the caller's mistakes into one line and exit code 2, and Ctrl-C into exit code 130; shows warnings."""
    try:
        with _shown_warnings():
            yield
    except KzooError as error:
        fail(str(error))
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        fail(f"cannot write{f' {error.filename}' if error.filename else ''}: {error.strerror}")
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def run(recipe: Recipe, args: Sequence[str], prog: str) -> None:
    """Trains `recipe` with its fields changed by `args`."""
    with user_errors():
        train(parse(Recipe, args, prog, default=recipe, description=f"Train the recipe {recipe.name}."))


def main(recipe: Recipe) -> None:
    """The command line of a recipe file: `python recipes/NAME.py --epochs 3`."""
    run(recipe, sys.argv[1:], sys.argv[0])
