"""The training loop: fit under a recipe, survive interruption, finish with a report."""

import dataclasses
import sys
import time
from typing import Any

import keras

import kzoo
from kzoo.console import show
from kzoo.data.seeds import EpochSeeds
from kzoo.data.split import ImageDataset, readable_images
from kzoo.errors import InvalidValueError, KzooError, OutputError
from kzoo.escape import terminal
from kzoo.files import ensure_writable, exclusive, refuse_unwritable
from kzoo.recipe import Recipe
from kzoo.tasks import Task, task_of
from kzoo.train import callbacks, quantization_aware, run_directory
from kzoo.train.decay import without_decay
from kzoo.train.finish import finish
from kzoo.train.history import Row, best_epoch, cut_history, rank, read_history
from kzoo.train.run_directory import HISTORY
from kzoo.weights import resolve
from kzoo.zoo import build, count_parameters

SMOKE_EPOCHS = 2


def train(recipe: Recipe) -> dict:
    """Trains, evaluates, folds and exports as `recipe` says, or goes on where it stopped.

    The run's directory holds, besides the checkpoints: `recipe.json`, `classes.json`, `history.csv`, `curves.png`,
    `tensorboard/`, `model.keras` (best epoch, float32, class probabilities), `folded.keras`, one `.tflite` for
    each precision in `recipe.export`, `predictions.png`, `report.json` and `README.md`, a model card.

    Args:
        recipe: what to train.

    Returns:
        The contents of `report.json`.

    Raises:
        UnknownNameError, DatasetError, WeightsError: before any training, if a name cannot be resolved.
        OutputError: the directory cannot be written, or holds a run of another recipe.
        KeyboardInterrupt: after saying how to go on.

    Example:
        >>> report = train(load_recipe("cifar10_resnet20").replace(epochs=3))
        >>> report["models"]["keras"]["accuracy"]
    """
    task = task_of(recipe.model)
    quantization_aware.check_recipe(recipe)
    if recipe.freeze_backbone and recipe.weights is None and recipe.backbone_weights is None:
        raise InvalidValueError("freeze_backbone would keep random weights; give weights or backbone_weights too")
    recipe = _shrink(recipe, task) if recipe.smoke else recipe
    refuse_unwritable(recipe.run_dir)
    for model, weights in ((recipe.model, recipe.weights), (recipe.backbone, recipe.backbone_weights)):
        if model is not None and weights is not None:
            resolve(model, weights)
    _say(f"data: {recipe.data.dataset}")
    data = task.load(recipe.data, recipe.task, recipe.seed)
    data = _take(data, task.smoke_images) if recipe.smoke else data
    with readable_images():
        return _train(recipe, task, data)


def _train(recipe: Recipe, task: Task, data: ImageDataset) -> dict:
    directory = recipe.run_dir
    batch_size = recipe.schedule.batch_size
    steps = data.train.size // batch_size
    if steps == 0:
        raise InvalidValueError(f"batch_size={batch_size} is more than the {data.train.size} training images")
    _say(
        f"  {data.train.size} training, {data.validation.size} validation, {data.test.size} test images of "
        f"{data.image_shape}, {len(data.classes)} classes"
    )

    _check_crop(recipe, data)
    keras.utils.set_random_seed(recipe.seed)
    model = compiled_model(recipe, task, data, steps)
    run_directory.prepare(recipe, data.classes, directory)
    ensure_writable(directory, need_bytes=run_directory.missing_bytes(model, directory))
    with exclusive(directory):
        return _run(recipe, task, data, model)


def _check_crop(recipe: Recipe, data: ImageDataset) -> None:
    """With a `crop_size` training sees parts of the images, and the finished model whole ones: it must take both."""
    crop, image = recipe.crop_shape, data.image_shape[:2]
    if crop is None:
        return
    told = " and the images of ".join("×".join(map(str, size)) for size in (crop, image))
    if any(part > whole for part, whole in zip(crop, image, strict=True)):
        raise InvalidValueError(f"crop_size is larger than the images: {told}; take a smaller one, or leave it out")
    for size in (crop, image, (None, None)):
        try:
            build(recipe.model, input_shape=(*size, 3), num_classes=len(data.classes), **recipe.build_options)
        except InvalidValueError as error:
            raise InvalidValueError(
                f"{recipe.model} does not take both the crops of {told}: {error}; or leave crop_size out"
            ) from error


def _run(recipe: Recipe, task: Task, data: ImageDataset, model: keras.Model) -> dict:
    directory = recipe.run_dir
    checkpoints = run_directory.checkpoints_of(directory)
    done, epochs = checkpoints.restore(model), recipe.schedule.epochs
    rows = read_history(directory / HISTORY, done, task.monitor)
    if done:
        checkpoints.best(best_epoch(rows, task.monitor))
        _say(f"resuming after {done} of {epochs} epochs" if done < epochs else "all epochs are done")
    run_directory.describe(recipe, data.classes, directory)
    if done < epochs:
        _say(f"model: {recipe.model}, {count_parameters(model):,} parameters; {_mode(recipe, model)}")
        _fit(recipe, task, model, data, rows)
    return finish(recipe, task, data, directory)


def compiled_model(recipe: Recipe, task: Task, data: ImageDataset, steps: int) -> keras.Model:
    """The model with logits, in the recipe's precision, with optimizer, loss and metric."""
    backbone: dict[str, Any] = {"backbone_weights": recipe.backbone_weights} if recipe.backbone_weights else {}
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        model = build(
            recipe.model,
            input_shape=(None, None, 3) if recipe.crop_shape else data.image_shape,
            num_classes=len(data.classes),
            weights=recipe.weights,
            classifier_activation=None,
            **recipe.build_options,
            **backbone,
        )
    finally:
        keras.config.set_dtype_policy(before)
    if recipe.freeze_backbone:
        kzoo.freeze_backbone(model)
    model = quantization_aware.prepare(recipe, model)
    model.compile(
        optimizer=make_optimizer(recipe, model, steps),
        loss=task.loss(recipe, data),
        metrics=task.metrics(data),
        auto_scale_loss=False,
        jit_compile={"auto": "auto", "true": True, "false": False}[recipe.jit_compile],
    )
    return model


def make_optimizer(recipe: Recipe, model: keras.Model, steps: int) -> keras.optimizers.Optimizer:
    """The recipe's optimizer with warm-up, cosine, and weight decay on kernels alone."""
    peak, warmup = recipe.optimizer.learning_rate, round(recipe.schedule.warmup_epochs * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else peak,
        decay_steps=max(1, recipe.schedule.epochs * steps - warmup),
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )
    options = dict(learning_rate=schedule, weight_decay=recipe.optimizer.weight_decay)
    if recipe.optimizer.name == "sgd":
        optimizer = keras.optimizers.SGD(momentum=0.9, nesterov=True, **options)
    else:
        optimizer = keras.optimizers.AdamW(**options)
    optimizer.exclude_from_weight_decay(var_list=without_decay(model))
    # wrapped here and not by compile, so that a checkpoint gives the same optimizer back whatever the global policy
    return keras.optimizers.LossScaleOptimizer(optimizer) if recipe.precision == "mixed_float16" else optimizer


def _fit(recipe: Recipe, task: Task, model: keras.Model, data: ImageDataset, rows: list[Row]) -> None:
    """Trains the epochs that follow those of `rows`."""
    directory, done, schedule = recipe.run_dir, len(rows), recipe.schedule
    cut_history(directory / HISTORY, rows)
    best = max((rank(row, task.monitor) for row in rows), default=None)
    started = time.perf_counter()
    try:
        model.fit(
            task.training(recipe, data, done),
            steps_per_epoch=data.train.size // schedule.batch_size,
            validation_data=task.validation(recipe, data),
            epochs=schedule.epochs,
            initial_epoch=done,
            callbacks=[
                EpochSeeds(recipe.seed),
                keras.callbacks.TerminateOnNaN(),
                callbacks.EpochSeconds(),
                keras.callbacks.CSVLogger(str(directory / HISTORY), append=True),
                keras.callbacks.TensorBoard(str(directory / "tensorboard"), write_graph=False),
                callbacks.Checkpoint(run_directory.checkpoints_of(directory), task.monitor, best),
                *task.callbacks(data, directory),
            ],
            shuffle=False,  # the pipeline shuffles
            verbose="auto" if sys.stdout.isatty() else 2,
        )
    except KeyboardInterrupt:
        _say("interrupted; finished epochs are kept, and the same command goes on from there")
        raise
    except OSError as error:
        raise OutputError(f"cannot write to {directory}: {error}; the last checkpoint is kept") from error
    _say(f"trained {schedule.epochs - done} epochs in {time.perf_counter() - started:.0f} s")
    reached = max(run_directory.checkpoints_of(directory).epochs(), default=0)
    if reached < schedule.epochs:
        raise KzooError(
            f"the loss became NaN in epoch {reached + 1}; lower --learning-rate (it was "
            f"{recipe.optimizer.learning_rate:g}) and start again with --no-resume"
        )


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
