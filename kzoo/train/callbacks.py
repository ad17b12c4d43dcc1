"""What happens at the end of each epoch of a run."""

import math
import time
from collections.abc import Sequence
from functools import partial

import keras

from kzoo.train.averages import AveragedWeights
from kzoo.train.checkpoints import Checkpoints
from kzoo.train.history import Row, best_epoch, is_over


class EpochSeconds(keras.callbacks.Callback):
    """Adds the wall-clock seconds of each epoch to the logs; must stand before the callbacks that write them."""

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self.started


class Checkpoint(keras.callbacks.Callback):
    """Keeps the last epochs and the best one, unless the loss is no number; ends a run that gets no better.

    Args:
        checkpoints: where they are kept.
        monitor: name of the metric whose best validation value chooses the epoch.
        rows: history of the epochs before.
        patience: number of epochs without a better one after which the run ends; None goes on.
        averages: what was validated, where that is not the model itself.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        monitor: str,
        rows: Sequence[Row] = (),
        patience: int | None = None,
        averages: AveragedWeights | None = None,
    ):
        super().__init__()
        self.checkpoints = checkpoints
        self.monitor = monitor
        self.rows = list(rows)
        self.patience = patience
        self.averages = averages

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            return
        self.rows.append({"epoch": epoch, **logs})
        if best_epoch(self.rows, self.monitor) == epoch + 1:
            save = partial(self.checkpoints.save_best, self.model, epoch + 1)
            self.averages.save(save) if self.averages else save()
        self.checkpoints.save(self.model, epoch + 1)
        if is_over(self.rows, self.monitor, self.patience):
            self.model.stop_training = True
