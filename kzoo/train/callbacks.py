"""What happens at the end of each epoch of a run."""

import math
import time

import keras

from kzoo.train.checkpoints import Checkpoints
from kzoo.train.history import rank


class EpochSeconds(keras.callbacks.Callback):
    """Adds the wall-clock seconds of each epoch to the logs; must stand before the callbacks that write them."""

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self.started


class Checkpoint(keras.callbacks.Callback):
    """Keeps the last epochs and the best one, unless the loss is no number.

    Args:
        checkpoints: where they are kept.
        monitor: name of the metric whose best validation value chooses the epoch.
        best: `rank` of the best epoch before.
    """

    def __init__(self, checkpoints: Checkpoints, monitor: str, best: tuple[float, float] | None = None):
        super().__init__()
        self.checkpoints = checkpoints
        self.monitor = monitor
        self.best = best

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            return
        reached = rank(logs, self.monitor)
        better = self.best is None or reached > self.best
        if better:
            self.best = reached
        self.checkpoints.save(self.model, epoch + 1, better)
