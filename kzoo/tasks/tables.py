"""The scores of files as Markdown, for the model card of a run and the page of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from kzoo.escape import markdown
from kzoo.tasks.task import Column, Task

MOST_CLASSES = 50


def told_details(task: Task, rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Those of the task's further scores that a file has."""
    return [column for column in task.details if any(row[column.key] is not None for row in rows)]


def shown_classes(task: Task, scores: Mapping[str, Any]) -> tuple[list[str], str]:
    """The names of the classes that a table shows: all of up to 50, else those whose first score is lowest.

    Returns:
        The names, and a sentence if they are not all; neither for a task that scores no classes.
    """
    if not task.class_columns:
        return [], ""
    first = task.class_columns[0]
    by_class: dict[str, float | None] = scores[first.key]
    if len(by_class) <= MOST_CLASSES:
        return list(by_class), ""
    known = sorted((value, index, name) for index, (name, value) in enumerate(by_class.items()) if value is not None)
    lowest = [name for _, _, name in known[:MOST_CLASSES]]
    return lowest, f"The {len(lowest)} of {len(by_class):,} classes with the lowest {first.title}."


def details_table(task: Task, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Further scores, a line for each, a column for each file; nothing for a task that has none.

    Args:
        task: of the files.
        rows: name of a file -> its scores.
    """
    details = told_details(task, list(rows.values()))
    if not details:
        return ""
    lines = "\n".join(
        f"| {column.title} | " + " | ".join(map(column.show, rows.values())) + " |" for column in details
    )
    titles = " | ".join(markdown(name, code=True) for name in rows)
    return f"\n| score | {titles} |\n| --- |{' --- |' * len(rows)}\n{lines}\n"


def classes_table(task: Task, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The scores of each class: all of the first file, and the first score of the others."""
    first, *others = rows
    names, note = shown_classes(task, rows[first])
    if not names:
        return ""
    shown = [(first, column) for column in task.class_columns]
    shown += [(name, task.class_columns[0]) for name in others]
    lines = "\n".join(
        " | ".join([f"| {markdown(name)}", *(column.text(rows[file][column.key][name]) for file, column in shown)])
        + " |"
        for name in names
    )
    titles = " | ".join(
        f"{column.title}, {markdown(file, code=True)}" if others else column.title for file, column in shown
    )
    start = f"\n{note}\n" if note else ""
    return f"{start}\n| class | {titles} |\n| --- |{' --- |' * len(shown)}\n{lines}\n"


def temperature_line(told: Mapping[str, float], file: str, split: str) -> str:
    """A paragraph on the temperature that `Probabilities.with_temperature` tells of."""
    return (
        f"\nWith a temperature of {told['temperature']:.3f}, fitted to the {told['fitted_on']} validation images, "
        f"{markdown(file, code=True)} has an expected calibration error of {told['ece_after']:.4f} instead of "
        f"{told['ece_before']:.4f} on the {split} images, and a cross-entropy of {told['loss_after']:.4f} instead of "
        f"{told['loss_before']:.4f}. No file holds the temperature.\n"
    )


def pictures(captions: Mapping[str, str]) -> str:
    """Pictures, and links to pages, by their files, which have captions."""
    signs = {file: "" if file.endswith(".html") else "!" for file in captions}
    return "".join(f"\n{signs[file]}[{caption}]({file})\n" for file, caption in captions.items())
