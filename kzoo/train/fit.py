"""The epochs of a run, from wherever it stopped."""

import sys
import time
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from kzoo.console import show
from kzoo.data.seeds import EpochSeeds
from kzoo.data.split import ImageDataset
from kzoo.errors import KzooError, OutputError
from kzoo.escape import terminal
from kzoo.recipe import Recipe
from kzoo.tasks import Task
from kzoo.train import callbacks
from kzoo.train.averages import BATCHES, AveragedWeights
from kzoo.train.checkpoints import Mark
from kzoo.train.history import Row, cut_history, is_over
from kzoo.train.run_directory import HISTORY, checkpoints_of


def fit(
    recipe: Recipe,
    task: Task,
    model: keras.Model,
    data: ImageDataset,
    rows: Sequence[Row],
    mark: Mark,
    state: Mapping[str, np.ndarray],
) -> None:
    """Trains what is left of a run.

    Args:
        recipe: the recipe.
        task: task of its model.
        model: compiled model, with the weights and the optimizer of `mark`.
        data: the dataset.
        rows: history of the epochs that are done.
        mark: how far the run is.
        state: state of `mark`, see `kzoo.train.checkpoints`.

    Raises:
        KzooError: the loss is no number.
        OutputError: the directory cannot be written.
        KeyboardInterrupt: after saying how to go on.
    """
    directory, schedule = recipe.run_dir, recipe.schedule
    cut_history(directory / HISTORY, rows)
    averages = None
    if recipe.optimizer.ema is not None:
        averages = AveragedWeights(lambda epoch: task.training(recipe, data, epoch).take(BATCHES).map(lambda x, y: x))
    checkpoints = checkpoints_of(directory)
    checkpoint = callbacks.Checkpoint(checkpoints, task.monitor, rows, schedule.patience, averages)
    steps = data.train.size // schedule.batch_size

    def train(mark: Mark, state: Mapping[str, np.ndarray], epochs: int) -> None:
        clock = callbacks.EpochSeconds()
        model.fit(
            task.training(recipe, data, *mark),
            steps_per_epoch=steps - mark.batches,
            validation_data=task.validation(recipe, data),
            epochs=epochs,
            initial_epoch=mark.epochs,
            callbacks=[
                EpochSeeds(recipe.seed),
                keras.callbacks.TerminateOnNaN(),
                clock,
                callbacks.InsideEpoch(checkpoints, recipe.checkpoint_minutes, clock, mark, state),
                keras.callbacks.CSVLogger(str(directory / HISTORY), append=True),
                keras.callbacks.TensorBoard(str(directory / "tensorboard"), write_graph=False),
                *([averages] if averages else []),
                checkpoint,
                *task.callbacks(data, directory),
            ],
            shuffle=False,  # the pipeline shuffles
            verbose="auto" if sys.stdout.isatty() else 2,
        )

    done, started = mark.epochs, time.perf_counter()
    try:
        if (
            mark.batches
        ):  # the rest of an epoch by itself, as Keras gives all epochs of a call the same number of steps
            model.evaluate(task.validation(recipe, data).take(1), verbose=0)  # makes the metrics that `state` is of
            train(mark, state, mark.epochs + 1)
            if not model.stop_training:
                mark, state = checkpoints.restore(model)  # the end of a call leaves averages in the weights
        if mark.epochs < schedule.epochs and not model.stop_training:
            train(mark, state, schedule.epochs)
    except KeyboardInterrupt:
        show("interrupted; the last checkpoint is kept, and the same command goes on from there")
        raise
    except OSError as error:
        raise OutputError(f"cannot write to {directory}: {error}; the last checkpoint is kept") from error
    reached = max(checkpoints.epochs(), default=0)
    show(terminal(f"trained {reached - done} epochs in {time.perf_counter() - started:.0f} s"))
    if is_over(checkpoint.rows, task.monitor, schedule.patience):
        show(f"ended early: the last {schedule.patience} epochs were no better than the best before")
    elif reached < schedule.epochs:
        raise KzooError(
            f"the loss became NaN in epoch {reached + 1}; lower --learning-rate (it was "
            f"{recipe.optimizer.learning_rate:g}) and start again with --no-resume"
        )
