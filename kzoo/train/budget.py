"""How many epochs fit into some minutes, measured where the run will be."""

import time
from itertools import islice

import keras

from kzoo.data.split import ImageDataset
from kzoo.errors import InvalidValueError
from kzoo.reading import read_json
from kzoo.recipe import Recipe, stored_flags
from kzoo.tasks import Task
from kzoo.train.devices import Devices
from kzoo.train.run_directory import RECIPE, checkpoints_of

PROBED, WARM = 12, 3  # batches that are timed, and before them


def epochs_within(recipe: Recipe, task: Task, model: keras.Model, data: ImageDataset, devices: Devices) -> int:
    """The number of epochs that a recipe trains within its minutes: at most its epochs, and at least one.

    A run that goes on keeps the number that it began with.

    Args:
        recipe: recipe with `schedule.minutes`.
        task: task of its model.
        model: compiled model, which is trained a little: of no use afterwards.
        data: the dataset.
        devices: where the model was made.
    """
    schedule, minutes = recipe.schedule, recipe.schedule.minutes
    if minutes is None:
        return schedule.epochs
    if recipe.resume and checkpoints_of(recipe.run_dir).marks():
        before = _stored(recipe)
        if before.get("minutes") == minutes and isinstance(before.get("epochs"), int):
            return before["epochs"]
    steps = data.train.size // schedule.batch_size
    with devices.scope():
        batches = task.training(recipe.replace(epochs=max(schedule.epochs, -(-(PROBED + WARM) // steps))), data, 0)
        validation = task.validation(recipe, data)
    seconds = []
    for images, targets in islice(batches, PROBED + WARM):
        started = time.perf_counter()
        model.train_on_batch(images, targets)
        seconds.append(time.perf_counter() - started)
    model.evaluate(validation, steps=1, verbose=0)  # compiles
    started = time.perf_counter()
    model.evaluate(validation, verbose=0)
    epoch = steps * sum(seconds[WARM:]) / PROBED + time.perf_counter() - started
    return max(1, min(schedule.epochs, int(60 * minutes / epoch)))


def _stored(recipe: Recipe) -> dict:
    try:
        stored = read_json(recipe.run_dir / RECIPE)
    except InvalidValueError:  # it is refused where the run goes on, with the reason
        return {}
    return stored_flags(stored) if isinstance(stored, dict) else {}
