"""The training step of a recipe, compiled by JAX for devices that may be elsewhere: nothing is read, nothing runs."""

import dataclasses
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from keras import ops

from kzoo.data.split import Example, ImageDataset, IndexedSplit
from kzoo.errors import InvalidValueError
from kzoo.planning.collectives import reductions
from kzoo.planning.roofline import Program
from kzoo.planning.sizes import Size
from kzoo.recipe import Recipe
from kzoo.tasks import Task, task_of
from kzoo.train.loop import compiled_model

FEW = 2  # images of the batch whose shapes are taken over
FAST: dict[str, Any] = {"exec_time_optimization_effort": -1.0}  # https://openxla.org/xla/effort_levels
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def blank_dataset(recipe: Recipe, size: Size) -> ImageDataset:
    """A dataset of a recipe's shapes and number of images, all of them black, that takes no memory.

    Raises:
        InvalidValueError: the recipe does not say how large its images are.
    """
    shape = recipe.data.shape or (size.side and (size.side, size.side))
    if not shape:
        raise InvalidValueError(
            f"images of {recipe.data.dataset} differ in size; say which to plan for by --image-size"
        )
    task, held_out = task_of(recipe), round(size.images * recipe.data.validation_fraction)

    def split(images: int) -> IndexedSplit:
        arrays: Example = {"image": np.broadcast_to(np.uint8(0), (images, *shape, 3))}
        return IndexedSplit.of_arrays(arrays | task.blank_truth(images, shape, size.classes))

    classes = tuple(map(str, range(size.classes)))
    train, rest = split(size.images - held_out), split(held_out)
    return ImageDataset(recipe.data.dataset, classes, (*shape, 3), train, rest, rest)


class Step:
    """The training step of a recipe.

    Args:
        recipe: the recipe, whose batch size is that of the schedule of its learning rate.
        data: of `blank_dataset`.
    """

    def __init__(self, recipe: Recipe, data: ImageDataset):
        task = task_of(recipe)
        self.model = compiled_model(recipe, task, data, max(1, data.train.size // recipe.schedule.batch_size))
        self._batch = _few(recipe, task, data)
        _make_state(self.model, self._batch)

    def _state(self) -> tuple[list[Any], ...]:
        model = self.model
        parts = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables)
        return tuple([variable.value for variable in part] for part in (*parts, model.metrics_variables))

    def compiled(self, batch_size: int, devices: Sequence[Any], thorough: bool = False) -> Program:
        """The step for a batch that is divided over devices, on each of which all weights are.

        Args:
            batch_size: a multiple of the devices.
            devices: of JAX.
            thorough: whether the compiler takes all the time it wants; minutes instead of seconds.
        """
        mesh = Mesh(np.array(devices), ("batch",))
        whole, divided = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))

        def replicated(value):
            return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=whole)

        def batched(value):
            return jax.ShapeDtypeStruct((batch_size, *value.shape[1:]), value.dtype, sharding=divided)

        state, batch = jax.tree.map(replicated, self._state()), jax.tree.map(batched, self._batch)
        # as Keras' trainer makes it
        step = jax.jit(
            self.model.train_step, donate_argnums=0, out_shardings=(None, jax.tree.map(lambda _: whole, state))
        )
        lowered = step.lower(state, batch)
        options = FAST if not thorough and devices[0].platform == "tpu" else None
        weights, statistics, optimizer, metrics = self._state()
        program = Program(
            batch_size=batch_size,
            devices=len(devices),
            hosts=len({device.process_index for device in devices}),
            flops=0,
            moved_bytes=0,
            reduced_bytes=0,
            reductions=0,
            argument_bytes=0,
            temporary_bytes=0,
            code_bytes=0,
            needed_bytes=None,
            compile_s=0,
            parameters=sum(value.size for value in weights),
            parameter_bytes=sum(value.nbytes for value in weights + statistics),
            optimizer_bytes=sum(value.nbytes for value in optimizer + metrics),
        )
        began = time.perf_counter()
        try:
            compiled = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            needed = _needed(str(error))
            if needed is None:
                raise
            needed += program.parameter_bytes + program.optimizer_bytes
            return dataclasses.replace(program, needed_bytes=needed, compile_s=time.perf_counter() - began)
        memory: Any = compiled.memory_analysis()
        costs: Any = compiled.cost_analysis()
        reduced, count = reductions(compiled.as_text() or "")
        return dataclasses.replace(
            program,
            flops=costs["flops"],
            moved_bytes=costs["bytes accessed"],
            reduced_bytes=reduced,
            reductions=count,
            argument_bytes=memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
            temporary_bytes=memory.temp_size_in_bytes,
            code_bytes=memory.generated_code_size_in_bytes,
            compile_s=time.perf_counter() - began,
        )


def _few(recipe: Recipe, task: Task, data: ImageDataset) -> Any:
    """A small batch as training gets it."""
    few = dataclasses.replace(data, train=data.train.take(FEW))
    return next(iter(task.training(recipe.replace(batch_size=FEW), few, 0)))


def _make_state(model: keras.Model, batch: Any) -> None:
    """Makes the variables of optimizer and metrics, which Keras makes in the first step."""
    images, targets = batch
    model.optimizer.build(model.trainable_variables)
    outputs = jax.eval_shape(lambda values: model(values, training=False), images)
    predictions = jax.tree.map(lambda output: ops.zeros(output.shape, output.dtype), outputs)
    model.compute_metrics(images, targets, predictions, None)
    model.reset_metrics()


def _needed(message: str) -> int | None:
    """What a compiler says that a program needs besides its arguments, which does not fit; None if it says no such.

    Example:
        >>> _needed("RESOURCE_EXHAUSTED: ... for HLO temporaries (43.70G) exceeds available HBM (15.75G).")
        46922517708
    """
    found = re.search(r"(?:temporaries \(|Used )([\d.]+)([KMG]?)\b", message)
    return int(float(found[1]) * UNITS[found[2]]) if found and "RESOURCE_EXHAUSTED" in message else None
