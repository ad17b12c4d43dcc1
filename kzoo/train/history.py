"""The history of a run: a row for each epoch in a CSV file, and which epoch was best."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from kzoo.errors import OutputError
from kzoo.files import atomic_path

Row = dict[str, float]
AGAIN = "start again with --no-resume, which keeps the earlier run"


def rank(row: Row, monitor: str) -> tuple[float, float]:
    """How good an epoch is: by its validation metric, and among equals by its validation loss.

    Args:
        row: of the history, or the logs of an epoch.
        monitor: name of the metric, the larger the better.
    """
    metric, loss = row[f"val_{monitor}"], row["val_loss"]
    return (-math.inf if math.isnan(metric) else metric, -math.inf if math.isnan(loss) else -loss)


def best_epoch(rows: Sequence[Row], monitor: str) -> int:
    """The number of the best epoch, counted from one; the first of equals."""
    return int(max(rows, key=lambda row: rank(row, monitor))["epoch"]) + 1


def is_over(rows: Sequence[Row], monitor: str, patience: int | None) -> bool:
    """Whether the last `patience` epochs were no better than the best before them."""
    return patience is not None and bool(rows) and len(rows) - best_epoch(rows, monitor) >= patience


def read_history(path: Path, epochs: int, monitor: str) -> list[Row]:
    """The rows of the first `epochs` epochs.

    Args:
        path: of the CSV file.
        epochs: that are done.
        monitor: name of the metric that chooses the best.

    Raises:
        OutputError: a row is missing, or is not one of this run.
    """
    found = _rows(path)
    columns = {"epoch", "seconds", "loss", "val_loss", f"val_{monitor}"}
    for epoch in range(epochs):
        if epoch not in found or not columns <= found[epoch].keys():
            raise OutputError(f"{path} has no whole row of epoch {epoch + 1} of {epochs}; put it back, or {AGAIN}")
    return [found[epoch] for epoch in range(epochs)]


def count_rows(path: Path) -> int:
    """The number of epochs that a CSV file, whole or not, tells of."""
    return len(_rows(path))


def cut_history(path: Path, rows: Sequence[Row]) -> None:
    """Makes `rows` the only ones of a CSV file."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "epoch": int(row["epoch"])} for row in rows)


def _rows(path: Path) -> dict[int, Row]:
    """Epoch -> its row; of an epoch that was run twice, the later one. What is no row is passed over."""
    rows = {}
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.DictReader(file):
                try:
                    values = {key: float(value) for key, value in row.items()}
                    rows[int(values["epoch"])] = values
                except (TypeError, ValueError, KeyError, OverflowError):  # the one that a kill cut off, or no row
                    continue
    except FileNotFoundError:
        pass
    except (OSError, csv.Error) as error:
        raise OutputError(f"cannot read {path} ({error}); put it back, or {AGAIN}") from error
    return rows
