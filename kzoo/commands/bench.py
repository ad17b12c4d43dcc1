"""`kzoo bench`: a model as LiteRT files and in Keras, timed by turns."""

from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from kzoo.bench import session
from kzoo.bench.timings import BenchReport, ModelBench, refuse_directory, tabulate
from kzoo.commands.forms import Bench
from kzoo.console import make_table, show, show_json
from kzoo.escape import terminal
from kzoo.files import ensure_writable


def run(form: Bench) -> None:
    form.check()
    if form.output is not None:
        refuse_directory(form.output)
        ensure_writable(form.output)
    with Live(console=Console(stderr=True), transient=True) as live:

        def watch(report: BenchReport, stage: str) -> None:
            model = report.models[-1]
            if stage:
                live.update(Group(*_tables(model), Spinner("dots", terminal(stage))))
                return
            live.console.print(f"{model.name}: {model.problem or f'{model.rounds} rounds'}", highlight=False)
            if form.output is not None:
                report.save(form.output)

        report = session.run(form, watch)
    if form.json:
        show_json(report.to_json())
    else:
        tables = (table for model in report.models for table in _tables(model))
        failures = (f"[bold red]failed[/] {terminal(problem)}" for problem in report.problems)
        show(*tables, *map(terminal, report.notes), *failures)
    if report.problems:
        raise SystemExit(1)


def _tables(model: ModelBench) -> Iterator[Table]:
    for timings in model.groups:
        titles, lines = tabulate(timings)
        table = make_table(*titles)
        table.title = model.title
        table.columns[0].no_wrap = True
        for line in lines:
            table.add_row(*map(terminal, line))
        yield table
