"""The command `kzoo bench`."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner

from kzoo.bench.plan import Plan
from kzoo.bench.report import BenchReport, ModelBench, refuse_directory, sheet
from kzoo.bench.session import run
from kzoo.escape import terminal
from kzoo.files import ensure_writable
from kzoo.show import make_table

PAPER = 160  # characters in a line of a file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench(Plan):
    """Time a model as LiteRT files and in Keras, by turns, and show the ratios."""

    output: Path | None = None
    """Folder for bench.json, bench.png and README.md."""

    def run(self) -> None:
        self.check()
        if self.output is not None:
            refuse_directory(self.output)
            ensure_writable(self.output)
        with Live(console=Console(stderr=True), transient=True) as live:

            def watch(report: BenchReport, stage: str) -> None:
                model = report.models[-1]
                if stage:
                    live.update(Group(*_tables(model), Spinner("dots", terminal(stage))))
                    return
                live.console.print(f"{model.name}: {model.problem or f'{model.rounds} rounds'}", highlight=False)
                if self.output is not None:
                    report.save(self.output)

            report = run(self, watch)
        console = Console()
        console = console if console.is_terminal else Console(width=PAPER)
        for model in report.models:
            for table in _tables(model):
                console.print(table)
        for note in report.notes:
            console.print(terminal(note), highlight=False)
        for problem in report.problems:
            console.print(f"[bold red]failed[/] {terminal(problem)}", highlight=False)
        if report.problems:
            raise SystemExit(1)


def _tables(model: ModelBench) -> Iterator[RenderableType]:
    for rows in model.groups:
        titles, lines = sheet(rows)
        table = make_table(*titles)
        table.title = model.title
        table.columns[0].no_wrap = True
        for line in lines:
            table.add_row(*map(terminal, line))
        yield table
