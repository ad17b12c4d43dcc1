"""The training loop: fit under a recipe, survive interruption, finish with a report."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import keras

import kzoo
from kzoo.console import show
from kzoo.data.split import ImageDataset, readable_images
from kzoo.errors import InvalidValueError, counted
from kzoo.escape import terminal
from kzoo.files import ensure_writable, exclusive, refuse_unwritable
from kzoo.recipe import Classify, Recipe, Segment
from kzoo.tasks import Task, task_of
from kzoo.train import quantization_aware, run_directory
from kzoo.train.auxiliary import AuxiliaryHeads
from kzoo.train.budget import epochs_within
from kzoo.train.checkpoints import Mark, build_optimizer
from kzoo.train.devices import Devices, check_recipe, choose_devices
from kzoo.train.finish import finish
from kzoo.train.fit import fit
from kzoo.train.history import best_epoch, is_over, read_history
from kzoo.train.hosts import SharedCheckpoints, facts_of, facts_of_data, joined
from kzoo.train.optimizer import make_optimizer
from kzoo.train.programs import keep_programs
from kzoo.train.run_directory import HISTORY
from kzoo.train.steps import steps_per_call
from kzoo.train.whitening import IMAGES, whiten, whitening_stem
from kzoo.weights import fetch_source, resolve
from kzoo.zoo import build, count_parameters

SMOKE_EPOCHS = 2
_log = logging.getLogger("kzoo")


def train(recipe: Recipe) -> dict:
    """Trains, evaluates, folds and exports as `recipe` says, or goes on where it stopped.

    The run's directory holds, besides the checkpoints: `recipe.json`, `classes.json`, `splits.csv` (path, label and
    split of each file, of a dataset of files), `history.csv`, `speed.json`, `curves.png`, `tensorboard/` (where
    TensorFlow is installed), `model.keras` (best epoch, float32, class probabilities), `folded.keras`, one `.tflite`
    for each precision in `recipe.export`, the pictures of its task (predictions, confusion matrix, calibration),
    `report.json` and `README.md`, a model card.

    Args:
        recipe: what to train.

    Returns:
        The contents of `report.json`; nothing in a process other than process 0 of several.

    Raises:
        UnknownNameError, DatasetError, WeightsError: before any training, if a name cannot be resolved.
        OutputError: the directory cannot be written, or holds a run of another recipe.
        KeyboardInterrupt: after saying how to go on.

    Example:
        >>> report = train(load_recipe("cifar10_resnet20").replace(epochs=3))
        >>> report["models"]["keras"]["accuracy"]
    """
    task = task_of(recipe)
    task.check(recipe)
    quantization_aware.check_recipe(recipe)
    for flag, value in (("freeze_backbone", recipe.freeze_backbone), ("freeze_epochs", recipe.schedule.freeze_epochs)):
        if value and recipe.weights is None and recipe.backbone_weights is None:
            raise InvalidValueError(f"{flag} would keep random weights; give weights or backbone_weights too")
    asked = recipe.schedule
    recipe = _shrink(recipe, task) if recipe.smoke else recipe
    with joined(recipe.hardware) as hosts:
        if hosts.first and asked.patience is not None and asked.patience >= asked.epochs:
            _log.warning(f"patience={asked.patience} ends no run of {counted(asked.epochs, 'epoch')} early")
        hosts.agree(facts_of(recipe))
        devices = choose_devices(recipe.hardware, recipe.schedule.batch_size, hosts)
        check_recipe(recipe, devices)
        if hosts.first:
            refuse_unwritable(recipe.run_dir)
        fetch_weights(recipe)
        _say(f"data: {recipe.data.dataset}")
        data = task.load(recipe.data, recipe.task, recipe.seed)
        data = _take(data, task.smoke_images) if recipe.smoke else data
        hosts.agree(facts_of_data(data))
        keep_programs()
        with readable_images():
            return _train(recipe, task, data, devices)


def fetch_weights(recipe: Recipe) -> None:
    """Has the weights that a recipe begins with on the disk, which is tried before anything that takes long.

    Raises:
        WeightsError: they cannot be had.
    """
    for model, weights in ((recipe.model, recipe.weights), (recipe.backbone, recipe.backbone_weights)):
        if model is not None and weights is not None:
            fetch_source(*resolve(model, weights))


def _train(recipe: Recipe, task: Task, data: ImageDataset, devices: Devices) -> dict:
    directory = recipe.run_dir
    batch_size = recipe.schedule.batch_size
    steps = data.train.size // batch_size
    if steps == 0:
        raise InvalidValueError(f"batch_size={batch_size} is more than the {data.train.size} training images")
    _say(
        f"  {data.train.size} training, {data.validation.size} validation, {data.test.size} test images of "
        f"{data.image_shape}, {counted(len(data.classes), 'class', 'classes')}"
    )

    _check_crop(recipe, data)
    for split in (data.validation, data.test):  # which are needed when training is over
        split.check()
    if recipe.schedule.minutes is not None:
        with devices.scope():
            probed = compiled_model(recipe, task, data, steps)
        epochs = epochs_within(recipe, task, probed, data, devices)
        _say(f"{counted(epochs, 'epoch')} for {recipe.schedule.minutes:g} minutes")
        recipe = recipe.replace(epochs=epochs)
    keras.utils.set_random_seed(recipe.seed)
    model_at = _models(recipe, task, data, steps, devices)
    whole = model_at(Mark(recipe.schedule.epochs))
    if not devices.hosts.first:
        return _run(recipe, task, data, model_at, devices)
    run_directory.prepare(recipe, data, directory)
    ensure_writable(directory, need_bytes=run_directory.missing_bytes(whole, directory))
    with exclusive(directory):
        return _run(recipe, task, data, model_at, devices)


def _models(
    recipe: Recipe, task: Task, data: ImageDataset, steps: int, devices: Devices
) -> Callable[[Mark], keras.Model]:
    """What gives the compiled model that a checkpoint is of: at first, perhaps, one whose head learns alone."""
    frozen = recipe.schedule.frozen

    @functools.cache
    def make(probing: bool) -> keras.Model:
        epochs = frozen if probing else recipe.schedule.epochs - frozen
        made = recipe.replace(freeze_backbone=True) if probing else recipe
        with devices.scope():
            model = compiled_model(made, task, data, steps, epochs)
            build_optimizer(model)
            if recipe.whiten_stem:
                whiten(model, data.train.arrays(IMAGES)["image"])
        return model

    return lambda mark: make(frozen > 0 and mark <= Mark(frozen))


def _check_crop(recipe: Recipe, data: ImageDataset) -> None:
    """Where training sees images of another size than the finished model, the model must take both."""
    crop, image = recipe.crop_shape, data.image_shape[:2]
    if crop is None:
        return
    flag = "crop_size" if isinstance(recipe.task, Segment) else "train_size"
    told = " and the images of ".join("×".join(map(str, size)) for size in (crop, image))
    if flag == "crop_size" and any(part > whole for part, whole in zip(crop, image, strict=True)):
        raise InvalidValueError(f"crop_size is larger than the images: {told}; take a smaller one, or leave it out")
    for size in (crop, image, (None, None)):
        try:
            build(recipe.model, input_shape=(*size, 3), num_classes=len(data.classes), **recipe.build_options)
        except InvalidValueError as error:
            raise InvalidValueError(
                f"{recipe.model} does not take both the crops of {told}: {error}; or leave {flag} out"
            ) from error


def _run(
    recipe: Recipe, task: Task, data: ImageDataset, model_at: Callable[[Mark], keras.Model], devices: Devices
) -> dict:
    directory, hosts = recipe.run_dir, devices.hosts
    checkpoints = SharedCheckpoints(run_directory.checkpoints_of(directory).folder, hosts)
    if hosts.count > 1:  # which make each model together
        model_at(Mark(0))
    start, epochs = checkpoints.restore(model_at), recipe.schedule.epochs
    mark = start.mark
    rows = hosts.told_json(lambda: read_history(directory / HISTORY, mark.epochs, task.monitor))
    left = mark.epochs < epochs and not is_over(rows, task.monitor, recipe.schedule.patience)
    if rows and hosts.first:
        checkpoints.best(best_epoch(rows, task.monitor), averaged=recipe.optimizer.ema is not None)
    if mark > Mark(0):
        inside = f" and {counted(mark.batches, 'batch', 'batches')}" if mark.batches else ""
        show(f"resuming after {mark.epochs} of {counted(epochs, 'epoch')}{inside}" if left else "all epochs are done")
    if hosts.first:
        run_directory.describe(recipe, data, directory)
    if left:
        model = start.model
        whole, learning = count_parameters(model_at(Mark(epochs))), count_parameters(model)
        head = "" if learning == whole else f", of which {learning:,} learn at first"
        _say(f"model: {recipe.model}, {whole:,} parameters{head}; {_mode(recipe, model)}; {devices}")
        fit(recipe, task, data, rows, start, model_at, devices, checkpoints)
    hosts.part()
    return finish(recipe, task, data, directory) if hosts.first else {}


def compiled_model(
    recipe: Recipe, task: Task, data: ImageDataset, steps: int, epochs: int | None = None
) -> keras.Model:
    """The model with logits, in the recipe's precision, with optimizer, loss and metric.

    Args:
        recipe: the recipe.
        task: task of its model.
        data: the dataset.
        steps: number of batches in an epoch.
        epochs: number of epochs that the optimizer is used for; default: all.
    """
    extra: dict[str, Any] = {"backbone_weights": recipe.backbone_weights} if recipe.backbone_weights else {}
    auxiliary = recipe.task.auxiliary_weight if isinstance(recipe.task, Classify) else None
    if auxiliary is not None:
        extra["auxiliary"] = True
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        model = build(
            recipe.model,
            input_shape=(None, None, 3) if recipe.crop_shape else data.image_shape,
            num_classes=len(data.classes),
            weights=recipe.weights,
            classifier_activation=task.training_activation,
            **recipe.build_options,
            **extra,
        )
    finally:
        keras.config.set_dtype_policy(before)
    if recipe.freeze_backbone:
        kzoo.freeze_backbone(model)
    if recipe.whiten_stem:
        whitening_stem(model).trainable = False
    if auxiliary is not None:
        model = AuxiliaryHeads(model.input, model.output, auxiliary_weight=auxiliary, name=model.name)
    loss = task.loss(recipe, data, model)
    model = task.learner(model, functools.partial(quantization_aware.prepare, recipe))
    model.compile(
        optimizer=make_optimizer(recipe, model, steps, epochs),
        loss=loss,
        metrics=task.metrics(data) or None,
        auto_scale_loss=False,
        jit_compile={"auto": "auto", "true": True, "false": False}[recipe.jit_compile],
        steps_per_execution=steps_per_call(steps, 4 * recipe.schedule.batch_size * math.prod(data.image_shape)),
    )
    return model


def _shrink(recipe: Recipe, task: Task) -> Recipe:
    return recipe.replace(epochs=min(recipe.schedule.epochs, SMOKE_EPOCHS), batch_size=task.smoke_batch)


def _take(data: ImageDataset, count: int) -> ImageDataset:
    splits = {name: getattr(data, name).take(count) for name in ("train", "validation", "test")}
    return dataclasses.replace(data, **splits)


def _mode(recipe: Recipe, model: keras.Model) -> str:
    """The mode that is really in force, which Keras decides when it compiles."""
    xla = "on" if model.jit_compile else "off"
    return f"XLA {xla} (jit_compile={recipe.jit_compile}), {recipe.precision}"


def _say(text: str) -> None:
    show(terminal(text))
