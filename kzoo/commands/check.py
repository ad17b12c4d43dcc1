"""`kzoo check`: that models do what every model of the zoo must do."""

import dataclasses
from collections.abc import Mapping

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kzoo.check.checks import CHECKS
from kzoo.check.matrix import MatrixFile, Verdict, check_models, summary
from kzoo.check.page import MARKS, draw_matrix, list_failures, write_markdown
from kzoo.commands.forms import Check
from kzoo.console import make_table, show, show_json
from kzoo.errors import InvalidValueError, counted
from kzoo.escape import terminal
from kzoo.files import ensure_writable, refuse_unwritable
from kzoo.needs import need_tensorflow_backend
from kzoo.registry import list_models, select_models

COLORS = {True: "green", False: "bold red", None: "bright_black"}


def run(form: Check) -> None:
    if form.names and form.all:
        raise InvalidValueError("both names and --all were given; give one of them")
    if not form.names and not form.all:
        raise InvalidValueError("no model given; name models or patterns such as 'resnet50*', or pass --all")
    names = list_models() if form.all else select_models(form.names)
    need_tensorflow_backend("kzoo check")
    file = None
    verdicts: dict[str, Verdict] = {}
    if form.output is not None:
        refuse_unwritable(form.output)
        file = MatrixFile(form.output / "matrix.json")
        ensure_writable(form.output)
        verdicts = {name: verdict for name, verdict in file.verdicts.items() if name in names and not verdict.failed}
    console = Console(stderr=True)
    if verdicts and form.output is not None:
        console.print(f"{counted(len(verdicts), 'model')} passed before, in {form.output / 'matrix.json'}")
    todo = [name for name in names if name not in verdicts]
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("checking", total=len(todo))
        for name, verdict in check_models(todo):
            verdicts[name] = verdict
            if file is not None:
                file.add(name, verdict)
            progress.console.print(f"{name} {'fails' if verdict.failed else 'passes'} ({verdict.seconds:.0f} s)")
            progress.advance(task)
    if file is not None and form.output is not None:
        draw_matrix(file.verdicts, form.output / "matrix.png")
        write_markdown(file.verdicts, form.output / "README.md")
    verdicts = {name: verdicts[name] for name in names}
    if form.json:
        show_json({name: dataclasses.asdict(each) | {"failed": each.failed} for name, each in verdicts.items()})
    else:
        failures = (
            f"[{COLORS[False]}]{name} {check}[/]: {terminal(why)}" for name, check, why in list_failures(verdicts)
        )
        show(_table(verdicts), *failures, summary(verdicts))
    if any(verdict.failed for verdict in verdicts.values()):
        raise SystemExit(1)


def _table(verdicts: Mapping[str, Verdict]) -> Table:
    table = make_table("model", *CHECKS)
    for name, verdict in verdicts.items():
        cells = []
        for outcome in verdict.outcomes.values():
            text = f"{MARKS[outcome.passed]} {outcome.note}" if outcome.passed else MARKS[outcome.passed]
            cells.append(f"[{COLORS[outcome.passed]}]{terminal(text)}[/]")
        table.add_row(name, *cells)
    return table
