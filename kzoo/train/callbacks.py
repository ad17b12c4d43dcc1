"""What happens at the end of each step and epoch of a run."""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial

import keras
import numpy as np

from kzoo.data.seeds import random_states
from kzoo.train.averages import AveragedWeights
from kzoo.train.checkpoints import Checkpoints, Mark
from kzoo.train.history import Row, best_epoch, is_over


class EpochSeconds(keras.callbacks.Callback):
    """Adds the wall-clock seconds of each epoch to the logs; must stand before the callbacks that write them."""

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = self.seconds

    @property
    def seconds(self) -> float:
        """Seconds of the epoch so far."""
        return time.perf_counter() - self.started


class EndOnNaN(keras.callbacks.Callback):
    """Ends training where the loss is no number.

    It looks one step late, as under JAX the last step is still computed: waiting for it, as
    `keras.callbacks.TerminateOnNaN` does, would keep the accelerator waiting for the next.
    """

    def on_train_begin(self, logs=None):
        self._before = 0.0

    def on_train_batch_end(self, batch, logs=None):
        before, self._before = self._before, logs["loss"]
        self._check(before)

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs["loss"])

    def _check(self, loss) -> None:
        if not math.isfinite(float(loss)):
            self.model.stop_training = True


class InsideEpoch(keras.callbacks.Callback):
    """Keeps checkpoints inside an epoch, and goes on from one; must stand behind what begins an epoch.

    Args:
        checkpoints: where they are kept.
        minutes: time between two of them.
        clock: seconds of the epoch.
        mark: where the run goes on.
        state: of that moment.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        minutes: float,
        clock: EpochSeconds,
        mark: Mark,
        state: Mapping[str, np.ndarray],
    ):
        super().__init__()
        self.checkpoints = checkpoints
        self.minutes = minutes
        self.clock = clock
        self.mark = mark
        self.state = state
        self.kept = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.mark.epochs and self.state:
            self.clock.started -= float(self.state["seconds"])
            for name, variable in self._variables().items():
                variable.assign(self.state[name])
        self.before = self.mark.batches if epoch == self.mark.epochs else 0
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        early = time.perf_counter() - self.kept < 60 * self.minutes
        if early or batch + 1 >= self.params["steps"] or not math.isfinite(float(logs["loss"])):
            return
        state = {name: variable.numpy() for name, variable in self._variables().items()}
        state["seconds"] = np.array(self.clock.seconds)
        self.checkpoints.save_step(self.model, Mark(self.epoch, self.before + batch + 1), state)
        self.kept = time.perf_counter()

    def _variables(self) -> dict[str, keras.Variable]:
        """What a model has of an epoch besides weights and optimizer: sums of metrics, states of random layers."""
        variables = [*self.model.metrics_variables, *random_states(self.model)]
        return {f"{number:04d}": variable for number, variable in enumerate(variables)}


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
