"""The epochs of a run, from wherever it stopped."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import keras
import numpy as np

from kzoo.console import show
from kzoo.data.seeds import EpochSeeds
from kzoo.data.split import ImageDataset
from kzoo.errors import KzooError, OutputError, counted
from kzoo.escape import terminal
from kzoo.recipe import Recipe
from kzoo.tasks import Task
from kzoo.train import callbacks
from kzoo.train.averages import BATCHES, AveragedWeights
from kzoo.train.checkpoints import Checkpoints, Mark, Restored
from kzoo.train.devices import Devices
from kzoo.train.history import Row, cut_history, is_over
from kzoo.train.programs import Programs
from kzoo.train.run_directory import HISTORY
from kzoo.train.speed import SpeedMeter
from kzoo.train.steps import over_devices, scan_steps


def _tensorboard(directory: Path) -> list[keras.callbacks.Callback]:
    """Writes the curves for TensorBoard, which Keras does with TensorFlow alone."""
    if find_spec("tensorflow") is None:
        return []
    return [keras.callbacks.TensorBoard(str(directory / "tensorboard"), write_graph=False)]


def fit(
    recipe: Recipe,
    task: Task,
    data: ImageDataset,
    rows: Sequence[Row],
    start: Restored,
    model_at: Callable[[Mark], keras.Model],
    devices: Devices,
    checkpoints: Checkpoints,
) -> None:
    """Trains what is left of a run.

    Args:
        recipe: the recipe.
        task: task of its model.
        data: the dataset.
        rows: history of the epochs that are done.
        start: model and mark from which the run goes on.
        model_at: gives the compiled model that a checkpoint of a mark is of.
        devices: that it is on.
        checkpoints: of the run.

    Raises:
        KzooError: the loss is no number.
        OutputError: the directory cannot be written.
        KeyboardInterrupt: after saying how to go on.
    """
    directory, schedule = recipe.run_dir, recipe.schedule
    first, alone = devices.hosts.first, devices.hosts.count == 1
    if first:
        cut_history(directory / HISTORY, rows)

    def training(*mark: int):
        with devices.scope():
            return task.training(recipe, data, *mark)

    averages = None
    if recipe.optimizer.ema is not None:
        averages = AveragedWeights(lambda epoch: (images for images, _ in islice(training(epoch), BATCHES)))
    checkpoint = callbacks.Checkpoint(checkpoints, task.monitor, rows, schedule.patience, averages)
    steps = data.train.size // schedule.batch_size

    def train(model: keras.Model, mark: Mark, state: Mapping[str, np.ndarray], epochs: int) -> None:
        clock, batches, programs = callbacks.EpochSeconds(), training(*mark), Programs(model, devices.replicas)
        with devices.scope():
            held_out = task.validation(devices.validating(recipe, data.validation.size), data)
            shared = keras.distribution.distribution() is not None
            given = over_devices(model, batches, held_out) if shared else (batches, held_out)
        if mark.batches and not shared:
            model.evaluate(held_out, steps=1, verbose=0)  # makes the metrics that `state` is of
        if model.steps_per_execution > 1 and not shared:
            scan_steps(model)
        model.fit(
            given[0],
            steps_per_epoch=steps - mark.batches,
            validation_data=given[1],
            epochs=epochs,
            initial_epoch=mark.epochs,
            callbacks=[
                EpochSeeds(recipe.seed),
                *task.judges(recipe, data),
                callbacks.EndOnNaN(),
                clock,
                *(
                    [SpeedMeter(batches, schedule.batch_size, directory, programs, len(devices.names))]
                    if first
                    else []
                ),
                callbacks.InsideEpoch(checkpoints, recipe.checkpoint_minutes, clock, mark, state),
                *([keras.callbacks.CSVLogger(str(directory / HISTORY), append=True)] if first else []),
                *(_tensorboard(directory) if alone else []),
                *([averages] if averages else []),
                checkpoint,
                *(task.callbacks(data, directory) if alone else []),  # which compute on their own
            ],
            shuffle=False,  # the pipeline shuffles
            verbose=0 if not first else "auto" if sys.stdout.isatty() else 2,
        )
        programs.warn()

    (model, mark, state), started = start, time.perf_counter()
    done = mark.epochs
    try:
        while True:
            if mark == Mark(schedule.frozen) > Mark(0):  # the head has learned
                weights, model = model.get_weights(), model_at(Mark(mark.epochs, 1))
                model.set_weights(weights)
            until = mark.epochs + 1 if mark.batches else schedule.epochs  # Keras gives all epochs as many batches
            if mark.epochs < schedule.frozen:
                until = min(until, schedule.frozen)
            train(model, mark, state, until)
            if model.stop_training or until == schedule.epochs:
                break
            model, mark, state = checkpoints.restore(model_at)  # the end of a call leaves averages in the weights
    except KeyboardInterrupt:
        kept = "the last checkpoint is kept, and the same command goes on from there"
        show(f"interrupted; {kept if checkpoints.marks() else 'there is no checkpoint yet'}")
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write to {directory}: {error}{'; the last checkpoint is kept' if checkpoints.marks() else ''}"
        ) from error
    reached = len(checkpoint.rows)
    show(terminal(f"trained {counted(reached - done, 'epoch')} in {time.perf_counter() - started:.0f} s"))
    if is_over(checkpoint.rows, task.monitor, schedule.patience):
        last = "epoch was" if schedule.patience == 1 else f"{schedule.patience} epochs were"
        show(f"ended early: the last {last} no better than the best before")
    elif reached < schedule.epochs:
        raise KzooError(
            f"the loss became NaN in epoch {reached + 1}; lower --learning-rate (it was "
            f"{recipe.optimizer.learning_rate:g}) and start again with --no-resume"
        )
