"""`kzoo check`: that models do what every model of the zoo must do."""

import dataclasses
from collections.abc import Mapping

import keras
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kzoo.check.checks import CHECKS
from kzoo.check.matrix import MatrixFile, Row, check_models, summary
from kzoo.check.report import MARKS, draw, list_failures, write_markdown
from kzoo.commands.forms import Check
from kzoo.console import make_table, show, show_json
from kzoo.errors import InvalidValueError
from kzoo.escape import terminal
from kzoo.files import ensure_writable, refuse_unwritable
from kzoo.registry import list_models, select_models

COLORS = {True: "green", False: "bold red", None: "bright_black"}


def run(form: Check) -> None:
    if form.names and form.all:
        raise InvalidValueError("both names and --all were given; give one of them")
    if not form.names and not form.all:
        raise InvalidValueError("no model given; name models or patterns such as 'resnet50*', or pass --all")
    names = list_models() if form.all else select_models(form.names)
    if keras.backend.backend() != "tensorflow":
        raise InvalidValueError(f"kzoo check needs KERAS_BACKEND=tensorflow, not {keras.backend.backend()!r}")
    file = None
    rows: dict[str, Row] = {}
    if form.output is not None:
        refuse_unwritable(form.output)
        file = MatrixFile(form.output / "matrix.json")
        ensure_writable(form.output)
        rows = {name: row for name, row in file.rows.items() if name in names and not row.failed}
    console = Console(stderr=True)
    if rows and form.output is not None:
        console.print(f"{len(rows)} models passed before, in {form.output / 'matrix.json'}")
    todo = [name for name in names if name not in rows]
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("checking", total=len(todo))
        for name, row in check_models(todo):
            rows[name] = row
            if file is not None:
                file.add(name, row)
            progress.console.print(f"{name} {'fails' if row.failed else 'passes'} ({row.seconds:.0f} s)")
            progress.advance(task)
    if file is not None and form.output is not None:
        draw(file.rows, form.output / "matrix.png")
        write_markdown(file.rows, form.output / "README.md")
    rows = {name: rows[name] for name in names}
    if form.json:
        show_json({name: dataclasses.asdict(row) | {"failed": row.failed} for name, row in rows.items()})
    else:
        failures = (
            f"[{COLORS[False]}]{name} {check}[/]: {terminal(reason)}" for name, check, reason in list_failures(rows)
        )
        show(_table(rows), *failures, summary(rows))
    if any(row.failed for row in rows.values()):
        raise SystemExit(1)


def _table(rows: Mapping[str, Row]) -> Table:
    table = make_table("model", *CHECKS)
    for name, row in rows.items():
        cells = []
        for outcome in row.outcomes.values():
            text = f"{MARKS[outcome.passed]} {outcome.note}" if outcome.passed else MARKS[outcome.passed]
            cells.append(f"[{COLORS[outcome.passed]}]{terminal(text)}[/]")
        table.add_row(name, *cells)
    return table
