"""The command `kzoo check`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import keras
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tyro.conf import Positional, arg

from kzoo.check.checks import CHECKS
from kzoo.check.matrix import MatrixFile, Row, check_models, summary
from kzoo.check.report import MARKS, draw, list_failures, write_markdown
from kzoo.errors import InvalidValueError
from kzoo.escape import terminal
from kzoo.files import ensure_writable, refuse_unwritable
from kzoo.registry import list_models, select_models
from kzoo.show import make_table

COLORS = {True: "green", False: "bold red", None: "bright_black"}


@dataclasses.dataclass(frozen=True)
class Check:
    """Check that models build, save, learn, fold, export and agree with JAX."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="[NAME...]")] = ()
    """Models, or shell-style patterns of them such as "resnet50*" (quote them)."""
    all: bool = False
    """Check every model of the zoo; takes a while."""
    output: Path | None = None
    """Folder for matrix.json, matrix.png and README.md. What passed there before is not checked again."""

    def run(self) -> None:
        if self.names and self.all:
            raise InvalidValueError("both names and --all were given; give one of them")
        if not self.names and not self.all:
            raise InvalidValueError("no model given; name models or patterns such as 'resnet50*', or pass --all")
        names = list_models() if self.all else select_models(self.names)
        if keras.backend.backend() != "tensorflow":
            raise InvalidValueError(f"kzoo check needs KERAS_BACKEND=tensorflow, not {keras.backend.backend()!r}")
        file = None
        rows: dict[str, Row] = {}
        if self.output is not None:
            refuse_unwritable(self.output)
            file = MatrixFile(self.output / "matrix.json")
            ensure_writable(self.output)
            rows = {name: row for name, row in file.rows.items() if name in names and not row.failed}
        console = Console(stderr=True)
        if rows:
            console.print(f"{len(rows)} models passed before, in {self.output / 'matrix.json'}")
        todo = [name for name in names if name not in rows]
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("checking", total=len(todo))
            for name, row in check_models(todo):
                rows[name] = row
                if file is not None:
                    file.add(name, row)
                progress.console.print(f"{name} {'fails' if row.failed else 'passes'} ({row.seconds:.0f} s)")
                progress.advance(task)
        if file is not None:
            draw(file.rows, self.output / "matrix.png")
            write_markdown(file.rows, self.output / "README.md")
        rows = {name: rows[name] for name in names}
        console = Console()
        console.print(_table(rows))
        for name, check, reason in list_failures(rows):
            console.print(f"[{COLORS[False]}]{name} {check}[/]: {terminal(reason)}", highlight=False)
        console.print(summary(rows), highlight=False)
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
