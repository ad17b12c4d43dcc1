"""Checkpoints that survive a kill at any moment, and the history of a run."""

import csv
import math
import re
import time
from pathlib import Path

import keras

from kzoo.files import PARTIAL, atomic_path

_EPOCH = re.compile(r"epoch_(\d+)\.keras")


class EpochSeconds(keras.callbacks.Callback):
    """Adds the wall-clock seconds of each epoch to the logs; must stand before the callbacks that write them."""

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self.started


class Checkpoint(keras.callbacks.Callback):
    """Keeps the last epoch (with the optimizer's state) and the best one, by validation accuracy.

    Each file is written to a temporary name and renamed; the number of finished epochs is in the last one's
    name, so that no moment exists at which the two disagree.

    Args:
        directory: of the checkpoints.
        best: the best validation accuracy of the epochs before.
    """

    def __init__(self, directory: Path, best: float = -math.inf):
        super().__init__()
        self.directory = directory
        self.best = best

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            return
        if logs["val_accuracy"] > self.best:
            self.best = logs["val_accuracy"]
            self._save(best_path(self.directory))
        previous = last_checkpoint(self.directory)
        self._save(self.directory / f"epoch_{epoch + 1:04d}.keras")
        if previous and previous[1] != epoch + 1:
            previous[0].unlink()

    def _save(self, path: Path) -> None:
        with atomic_path(path) as partial:
            self.model.save(partial)


def best_path(directory: Path) -> Path:
    """The checkpoint of the best epoch."""
    return directory / "best.keras"


def last_checkpoint(directory: Path) -> tuple[Path, int] | None:
    """The newest checkpoint and how many epochs it has seen; removes what a kill left half-written."""
    if not directory.is_dir():
        return None
    for partial in directory.glob(f".*{PARTIAL}*"):
        partial.unlink()
    found = [(path, int(match[1])) for path in directory.iterdir() if (match := _EPOCH.fullmatch(path.name))]
    return max(found, key=lambda item: item[1], default=None)


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
