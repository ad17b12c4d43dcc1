"""Timing, and tables that the studies print and write."""

import statistics
import time
from collections.abc import Callable

from rich.table import Table

Sheet = tuple[str, tuple[str, ...], list[tuple[str, ...]]]  # title, columns, rows


def on_console(sheet: Sheet) -> Table:
    """The sheet for a terminal."""
    title, columns, rows = sheet
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    return table


def in_markdown(sheet: Sheet) -> str:
    """The sheet under a heading."""
    title, columns, rows = sheet
    lines = (" | ".join(cells) for cells in (columns, ["---"] * len(columns), *rows))
    return "\n".join([f"## {title}", "", *(f"| {line} |" for line in lines), ""])


REST_S = 0.1  # the threads of a matrix product go on spinning for a while, and would slow down what comes next


def median_ms(run: Callable, repeats: int) -> float:
    """Median time of `run()` after two runs to warm up."""
    return interleaved_ms({"": run}, repeats)[""]


def interleaved_ms(runs: dict[str, Callable], repeats: int, pick: Callable = statistics.median) -> dict[str, float]:
    """The time that `pick` picks for each after two runs to warm up, all by turns: a busy machine hits them alike."""
    times = {name: [] for name in runs}
    for repeat in range(-min(2, repeats), repeats):
        for name, run in runs.items():
            time.sleep(REST_S)
            start = time.perf_counter()
            run()
            if repeat >= 0:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: pick(each) for name, each in times.items()}
