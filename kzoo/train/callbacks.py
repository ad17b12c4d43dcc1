"""Checkpoints that survive a kill at any moment, and the history of a run."""

import csv
import math
import re
import time
from pathlib import Path

import keras

from kzoo.files import PARTIAL, atomic_path


class EpochSeconds(keras.callbacks.Callback):
    """Adds the wall-clock seconds of each epoch to the logs; must stand before the callbacks that write them."""

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self.started


class Checkpoint(keras.callbacks.Callback):
    """Keeps the last epoch (with the optimizer's state) and the best one, by a metric of validation.

    Each file is written to a temporary name and renamed, and has the number of its epoch in its name, so that no
    moment exists at which files and counts disagree.

    Args:
        directory: of the checkpoints.
        best: the best value of the epochs before.
        monitor: name of the metric in the logs.
    """

    def __init__(self, directory: Path, best: float = -math.inf, monitor: str = "val_accuracy"):
        super().__init__()
        self.monitor = monitor
        self.directory = directory
        self.best = best

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            return
        older = [path for path in self.directory.glob("*.keras") if not path.name.startswith(".")]
        improved = logs[self.monitor] > self.best
        if improved:
            self.best = logs[self.monitor]
            self._save(self.directory / f"best_{epoch + 1:04d}.keras")
        self._save(self.directory / f"epoch_{epoch + 1:04d}.keras")
        for path in older:  # only now: a kill before leaves the older pair whole
            if improved or not path.name.startswith("best"):
                path.unlink()

    def _save(self, path: Path) -> None:
        with atomic_path(path) as partial:
            self.model.save(partial)


def best_checkpoint(directory: Path) -> tuple[Path, int]:
    """The checkpoint of the best epoch, and which epoch that is, counted from one."""
    return max(_numbered(directory, "best"), key=lambda item: item[1])


def forget_best_after(directory: Path, epochs: int) -> None:
    """Removes the best of an epoch that was killed before its own checkpoint was whole."""
    for path, epoch in _numbered(directory, "best"):
        if epoch > epochs:
            path.unlink()


def _numbered(directory: Path, kind: str) -> list[tuple[Path, int]]:
    found = ((path, re.fullmatch(rf"{kind}_(\d+)\.keras", path.name)) for path in directory.iterdir())
    return [(path, int(match[1])) for path, match in found if match]


def last_checkpoint(directory: Path) -> tuple[Path, int] | None:
    """The newest checkpoint and how many epochs it has seen; removes what a kill left half-written."""
    if not directory.is_dir():
        return None
    for partial in directory.glob(f".*{PARTIAL}*"):
        partial.unlink()
    return max(_numbered(directory, "epoch"), key=lambda item: item[1], default=None)


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of a CSV log, one for each epoch; of an epoch that was run twice, the later one."""
    if not path.is_file():
        return []
    rows = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                values = {key: float(value) for key, value in row.items()}
            except (TypeError, ValueError):  # the row that was being written when the process was killed
                continue
            rows[int(values["epoch"])] = values
    return [rows[epoch] for epoch in sorted(rows)]


def keep_history(path: Path, epochs: int) -> list[dict[str, float]]:
    """Cuts a CSV log back to its first `epochs` epochs and returns their rows."""
    rows = [row for row in read_history(path) if row["epoch"] < epochs]
    if not rows:
        path.unlink(missing_ok=True)
        return []
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "epoch": int(row["epoch"])} for row in rows)
    return rows
