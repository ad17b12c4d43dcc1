"""Several training steps in one program on an accelerator, whose processor would wait for Python between them."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import keras

MOST = 32  # steps of one program
BYTES = 2**28  # of the images of one program, which lie on the device together


def steps_per_call(steps: int, image_bytes: int) -> int:
    """How many steps a program takes: a divisor of the steps of an epoch, and one where that gains nothing.

    Keras' own `steps_per_execution` calls the program of one step in a loop under JAX. On a processor the loop inside
    the program is slower than the one outside, and with TensorFlow Keras has its own.

    Args:
        steps: number of steps in an epoch.
        image_bytes: of the images of one step.
    """
    if keras.backend.backend() != "jax":
        return 1
    import jax

    if jax.default_backend() == "cpu":
        return 1
    most = max(1, min(MOST, BYTES // image_bytes))
    return max(number for number in range(1, most + 1) if steps % number == 0)


def scan_steps(model: keras.Model) -> None:
    """Makes `fit` of a compiled model take `model.steps_per_execution` steps in one program, by `jax.lax.scan`.

    Weights, statistics and metrics are those of the steps taken one by one, up to rounding; the logs are of the last.
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

    one, many = jax.jit(model.train_step, donate_argnums=0), jax.jit(several, donate_argnums=0)

    def train_function(state: Any, iterator: Iterator):
        batches = list(islice(iterator, count))
        if not batches:
            raise StopIteration
        if len(batches) == count:
            return many(state, batches)
        for batch in batches:  # of `train_on_batch`
            logs, state = one(state, batch)
        return logs, state

    model.train_function = train_function
