"""Several training steps in one program, and steps over several devices, under JAX."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import keras
import numpy as np

MOST = 32  # steps of one program
BYTES = 2**28  # of the images of one program, which lie on the device together


def steps_per_call(steps: int, image_bytes: int) -> int:
    """How many steps a program takes: a divisor of the steps of an epoch, and one where that gains nothing.

    Keras' own `steps_per_execution` calls the program of one step in a loop under JAX. On a processor the loop inside
    the program is slower than the one outside, and with TensorFlow Keras has its own. An accelerator's processor would
    wait for Python between the steps.

    Args:
        steps: number of steps in an epoch.
        image_bytes: of the images of one step.
    """
    if keras.backend.backend() != "jax":
        return 1
    import jax

    distribution = keras.distribution.distribution()
    mesh = None if distribution is None else distribution.device_mesh.backend_mesh
    if (jax.default_backend() if mesh is None else mesh.devices.flat[0].platform) == "cpu":
        return 1
    most = max(1, min(MOST, BYTES // image_bytes * (1 if mesh is None else mesh.size)))
    return max(number for number in range(1, most + 1) if steps % number == 0)


def scan_steps(model: keras.Model, fetch: Callable = lambda batch: batch, sharding: Any = None) -> None:
    """Makes `fit` of a compiled model take `model.steps_per_execution` steps in one program, by `jax.lax.scan`.

    Weights, statistics and metrics are those of the steps taken one by one, up to rounding; the logs are of the last.

    Args:
        model: the model.
        fetch: gives the batch for what `fit` is given as one.
        sharding: `jax.sharding.Sharding` of weights, state and metrics; None leaves it to the compiler.
    """
    import jax

    count = model.steps_per_execution
    structure = jax.tree.structure

    def several(state, batches):
        def step(state, batch):
            logs, after = model.train_step(state, batch)
            return jax.tree.unflatten(structure(state), jax.tree.leaves(after)), logs

        state, logs = jax.lax.scan(step, state, jax.tree.map(lambda *parts: jax.numpy.stack(parts), *batches))
        return jax.tree.map(lambda values: values[-1], logs), state

    one = jax.jit(model.train_step, donate_argnums=0, out_shardings=sharding)
    many = jax.jit(several, donate_argnums=0, out_shardings=sharding)

    def train_function(state: Any, iterator: Iterator):
        batches = [fetch(batch) for batch in islice(iterator, count)]
        if not batches:
            raise StopIteration
        if len(batches) == count > 1:
            return many(state, batches)
        for batch in batches:  # of `train_on_batch`
            logs, state = one(state, batch)
        return logs, state

    model.train_function = train_function


class Numbers(keras.utils.PyDataset):
    """The numbers of batches, which `fit` is given in their place.

    Keras takes the batches of several processes for the shares of each, and has no place for a last one that the
    devices do not divide. These go through it as they are.
    """

    def __init__(self, count: int):
        super().__init__()
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int):
        if index >= self._count:
            raise IndexError(index)
        return (np.full((1,), index, "int32"),)


def over_devices(model: keras.Model, batches: keras.utils.PyDataset, held_out: keras.utils.PyDataset):
    """Makes `fit` of a compiled model compute batches that lie on the devices of the distribution in force.

    Each step is one program for all of them, which sees the whole batch: loss, gradient, statistics of batch
    normalisation and metrics are over all of it. Weights and state are on each device.

    Args:
        model: compiled, and made with the distribution in force.
        batches: of training, made with it too.
        held_out: of validation.

    Returns:
        What stands for `batches` and `held_out` in the call of `fit`.
    """
    import jax

    mesh = keras.distribution.distribution().device_mesh.backend_mesh
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    build_metrics(model, *held_out[0])
    scan_steps(model, lambda number: batches[_read(number)], everywhere)
    test = jax.jit(model.test_step, donate_argnums=0, out_shardings=everywhere)

    def test_function(state: Any, iterator: Iterator):
        numbers = list(islice(iterator, model.steps_per_execution))
        if not numbers:
            raise StopIteration
        for number in numbers:
            logs, state = test(state, held_out[_read(number)])
        return logs, state

    model.test_function = test_function
    return Numbers(len(batches)), Numbers(len(held_out))


def _read(number) -> int:
    return int(np.asarray(number[0])[0])


def build_metrics(model: keras.Model, images, targets) -> None:
    """Makes the variables of loss and metrics, which Keras would make of the batches that it is not given."""
    truth = keras.tree.map_structure(lambda each: np.zeros((1, *each.shape[1:]), each.dtype), targets)
    found = model.compute_output_spec(keras.KerasTensor((1, *images.shape[1:]), images.dtype))
    outputs = keras.tree.map_structure(lambda spec: np.zeros(spec.shape, "float32"), found)
    model.compute_loss(None, truth, outputs, training=False)
    model.compute_metrics(None, truth, outputs)
    model.reset_metrics()
