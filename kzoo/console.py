"""What every command shares: options from words, mistakes as one line and exit code 2, tables for people and programs.

A table is drawn on a terminal. Elsewhere its rows are lines of cells between tabs, whole and as `grep` and `cut` want
them, below one line of the columns' names.
"""

import contextlib
import errno
import io
import json
import logging
import math
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kzoo.errors import KzooError
from kzoo.escape import printable

T = TypeVar("T")
# how tyro calls what a value may be -> in words; None is what stands where an option is left out
_KINDS = {"INT": "a whole number", "FLOAT": "a number", "{INT INT}": "two whole numbers", "STR": "text", "{None}": ""}
USER_ERROR, INTERRUPTED = 2, 130
DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}


def parse(form: Callable[..., T], args: Sequence[str], prog: str, **options) -> T:
    """`tyro.cli`, with mistakes as one line on standard error."""
    import tyro

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
    paragraphs: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip("│ ")
        if text.startswith("╭") or (text and not text.strip("─-╰╯")):  # a title in its frame, or a rule
            paragraphs.append([])
        elif text:
            paragraphs[-1].append(text)
    parts = [" ".join(part) for part in paragraphs if part]
    # without Unicode the title stands before the first rule, as a paragraph of its own
    message = parts[0] if "╭" in box or len(parts) == 1 else parts[1]
    message = re.sub(r"^Error parsing [\w.]+: ", "", message)  # which part of a form a value is of
    message = _in_words(message)
    meant = re.search(r"Perhaps you meant:[^-]*(?:-{3,}[^-]*)?(--[\w-]+)", box)
    return message + (f"; did you mean {meant[1]}?" if meant else "")


def _in_words(message: str) -> str:
    """A message on a value that cannot be read, in place of the parser's words on Python's types."""
    if not (option := re.match(r"Error parsing (--[\w-]+): (.*)", message)):
        return message
    flag, reason = option.groups()
    if union := re.match(r"no type matching (.*) could be instantiated from (\[.*?\])\. Got errors", reason):
        kinds, given = union.groups()
    elif plain := re.search(r"(int\(\)|to float).*: '(.*)'$", reason):
        kinds, given = "INT" if plain[1] == "int()" else "FLOAT", plain[2]
    elif values := re.match(r"Could not find valid parse for arguments: (.*)", reason):
        return f"{flag} {_values(values[1])} is not accepted"
    else:
        return message
    accepted = [_KINDS.get(kind, f"one of {kind.strip('{}').replace(',', ', ')}") for kind in kinds.split("|")]
    return f"{flag} {_values(given)} is not accepted; it must be {' or '.join(filter(None, accepted))}"


def _values(shown: str) -> str:
    """Words of a command, of a list of them as Python shows it."""
    return " ".join(re.findall(r"'([^']*)'", shown)) or shown


def fail(message: str) -> None:
    """Ends the process with one line and exit code 2."""
    print(f"kzoo: {printable(' '.join(message.split()))}", file=sys.stderr)
    raise SystemExit(USER_ERROR)


class _Warnings(logging.Handler):
    """Shows what kzoo warns of, a line each, on standard error."""

    def __init__(self, level: int):
        super().__init__(level)
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = printable(record.getMessage())
        if message not in self._told:  # a model is built twice, a folder looked at twice
            self._told.add(message)
            print(f"kzoo: warning: {message}", file=sys.stderr)


@contextlib.contextmanager
def _shown_warnings() -> Iterator[None]:
    from PIL import Image

    log, handler = logging.getLogger("kzoo"), _Warnings(logging.WARNING)
    if any(isinstance(other, _Warnings) for other in log.handlers):  # of the command around this one
        yield
        return
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
def quiet_import() -> Iterator[None]:
    """Keeps what libraries write to standard error while they load, and shows it if they fail to.

    TensorFlow tells of processors and devices before it looks how much it is to tell.
    """
    sys.stderr.flush()
    try:
        before = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(before, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns the user's mistakes into one line and exit code 2, Ctrl-C into exit code 130; tells each warning once."""
    try:
        with _shown_warnings():
            yield
        sys.stdout.flush()
    except KzooError as error:
        fail(str(error))
    except BrokenPipeError:  # who reads has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "tensorflow_datasets", "ai_edge_litert"):
            raise
        package = error.name.replace("_", "-")
        fail(f"this needs {package}, which is not installed; pip install {package}")
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        fail(f"cannot write{f' {error.filename}' if error.filename else ''}: {error.strerror}")
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def make_table(*columns: str, header: bool = True) -> Table:
    """A table with these columns, or without a header and titled by the first one."""
    table = Table(show_header=header, title=None if header else columns[0])
    for column in columns:
        table.add_column(column if header else "", overflow="fold")
    return table


def show(*parts: Table | str) -> None:
    """Prints tables and lines, as text with rich's markup.

    On a terminal a table has a frame and the terminal's width. In a file or a pipe its title, names of columns and
    caption are lines, and each row is one, with tabs between its cells.
    """
    console = Console(highlight=False)
    for number, part in enumerate(parts):
        if console.is_terminal or isinstance(part, str):
            console.print(part, soft_wrap=isinstance(part, str))
            continue
        if number and not isinstance(parts[number - 1], str):
            print()
        print("\n".join(_plain(part)))


def _plain(table: Table) -> Iterator[str]:
    if table.title:
        yield _line(table.title)
    if table.show_header:
        yield "\t".join(_line(column.header) for column in table.columns)
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        yield "\t".join(map(_line, cells))
    if table.caption:
        yield _line(table.caption, keep_lines=True)


def _line(cell: Any, keep_lines: bool = False) -> str:
    text = Text.from_markup(cell).plain if isinstance(cell, str) else str(cell)
    return text if keep_lines else " ".join(text.split())


def show_json(value: Any) -> None:
    """Prints a value as JSON; what is not finite, which JSON cannot say, as null."""
    print(as_json(value))


def as_json(value: Any) -> str:
    """A value as JSON; what is not finite is null."""
    return json.dumps(_finite(value), indent=2)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(inside) for name, inside in value.items()}
    return [_finite(inside) for inside in value] if isinstance(value, (list, tuple)) else value
