"""The page of a matrix: its chart and its Markdown."""

import math
from collections.abc import Mapping
from pathlib import Path

import kzoo
from kzoo.check.checks import CHECKS
from kzoo.check.matrix import Verdict, by_family, summary
from kzoo.files import atomic_path, write_text

MARKS = {True: "✓", False: "✗", None: "–"}
COLORS = {True: "#1b7837", False: "#b2182b", None: "#bdbdbd"}
LINE, CELL, NAME = 0.21, 0.3, 2.05  # inches: height of a row, width of a cell, room for the names
SPACE = 0.35  # inches between the columns of rows
ABOVE = 1.25  # inches for the title and the names of the checks


def write_markdown(verdicts: Mapping[str, Verdict], path: Path) -> None:
    """Writes what is checked, the chart, the failures, and a table for each family."""
    checks = "\n".join(f"- `{name}`: {check.__doc__}" for name, check in CHECKS.items())
    minutes = sum(verdict.seconds for verdict in verdicts.values()) / 60
    failures = "\n".join(f"- `{name}` {check}: {reason}" for name, check, reason in list_failures(verdicts))
    tables = "\n".join(_family_table(family, members) for family, members in by_family(verdicts).items())
    text = f"""# What every model of the zoo does

{summary(verdicts)} (kzoo {kzoo.__version__}, {minutes:.0f} minutes). Made by

```
kzoo check --all --output FOLDER
```

on a narrow version of every model with random weights. Numbers are relative errors, of the loss or of the
largest output.

{checks}

![Models and checks](matrix.png)

## Failures

{failures or "None."}

{tables}"""
    write_text(path, text)


def _family_table(family: str, verdicts: Mapping[str, Verdict]) -> str:
    lines = [f"## {family}", "", f"| model | {' | '.join(CHECKS)} |", f"| --- |{' --- |' * len(CHECKS)}"]
    for name, verdict in verdicts.items():
        cells = (f"{MARKS[o.passed]} {o.note}" if o.passed else MARKS[o.passed] for o in verdict.outcomes.values())
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def list_failures(verdicts: Mapping[str, Verdict]) -> list[tuple[str, str, str]]:
    """Model, check and reason of every failure."""
    return [
        (name, check, outcome.note)
        for name, verdict in verdicts.items()
        for check, outcome in verdict.outcomes.items()
        if outcome.passed is False
    ]


def draw_matrix(verdicts: Mapping[str, Verdict], path: Path) -> None:
    """Draws models × checks by family as a PNG about as wide as tall: green passes, red fails, grey was skipped."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    columns = _columns(by_family(verdicts))
    lines = max(len(column) for column in columns)
    column_width = NAME + CELL * len(CHECKS)
    width = len(columns) * column_width + SPACE * (len(columns) + 1)
    height = ABOVE + LINE * lines + SPACE / 2
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axis.axis("off")
    axis.text(SPACE, 0.3, summary(verdicts), fontsize=min(14, 2.2 * width), weight="bold", va="center")
    axis.text(SPACE, 0.55, "green passes, × fails, grey was skipped", fontsize=9, va="center")
    for index, column in enumerate(columns):
        left = SPACE + index * (column_width + SPACE)
        cells = left + NAME
        for position, check in enumerate(CHECKS):
            axis.text(cells + (position + 0.5) * CELL, ABOVE - 0.06, check, rotation=50, fontsize=9, va="bottom")
        for line, (name, verdict) in enumerate(column):
            middle = ABOVE + (line + 0.5) * LINE
            if verdict is None:
                axis.text(left, middle, name, fontsize=10, weight="bold", va="center")
                continue
            axis.text(cells - 0.08, middle, name, fontsize=9, va="center", ha="right")
            for position, outcome in enumerate(verdict.outcomes.values()):
                corner = (cells + position * CELL + 0.015, middle - LINE / 2 + 0.015)
                size = (CELL - 0.03, LINE - 0.03)
                axis.add_patch(Rectangle(corner, *size, color=COLORS[outcome.passed], linewidth=0))
                if outcome.passed is False:
                    center = (cells + (position + 0.5) * CELL, middle)
                    axis.text(*center, "×", color="white", fontsize=10, weight="bold", va="center", ha="center")
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=110)


def _columns(families: Mapping[str, Mapping[str, Verdict]]) -> list[list[tuple[str, Verdict | None]]]:
    """Lines of the chart, in the number of columns that comes nearest to a square; a title has no verdict."""
    count = sum(1 + len(members) for members in families.values())
    width = NAME + CELL * len(CHECKS) + SPACE

    def height(number: int) -> float:
        return ABOVE + LINE * math.ceil(count / number)

    number = min(range(1, 10), key=lambda number: abs(math.log(number * width / height(number))))
    longest = math.ceil(count / number)
    columns: list[list[tuple[str, Verdict | None]]] = [[]]
    for family, members in families.items():
        for position, (name, verdict) in enumerate(members.items()):
            if len(columns[-1]) + (position == 0) >= longest + 1:
                columns.append([])
            if position == 0 or not columns[-1]:
                columns[-1].append((family if position == 0 else f"{family}, continued", None))
            columns[-1].append((name, verdict))
    return columns
