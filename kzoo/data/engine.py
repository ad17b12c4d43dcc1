"""Batches for backends other than TensorFlow: read ahead of the step, and changed by compiled programs.

Threads read them, and files are decoded in processes where there are cores for them.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from kzoo.data import workers
from kzoo.data.split import Example, IndexedSplit, readable_images

AHEAD = max(2, os.cpu_count() or 1)  # batches that are read before they are asked for
Prepare = Callable[[Any, Any], tuple[Any, Any]]  # the number of a batch and its examples -> inputs and targets


class ArrayBatches(keras.utils.PyDataset):
    """Batches of which each is a function of its number alone.

    Args:
        split: the examples.
        batch_size: examples of a batch; the last one of an order may have fewer.
        numbers: of the batches, counted on from the first of epoch 0.
        steps: number of batches in an epoch.
        order_of: gives the numbers of an epoch's examples in their order.
        prepare: makes inputs and targets with Keras' operations; compiled under JAX.
        draws_of: gives the numbers that the parts of an epoch's pictures follow from, of a split of parts.

    Attributes:
        waited: seconds for which batches were waited for since the beginning.
    """

    def __init__(
        self,
        split: IndexedSplit,
        batch_size: int,
        numbers: range,
        steps: int,
        order_of: Callable[[int], np.ndarray],
        prepare: Prepare,
        draws_of: Callable[[int], np.ndarray] | None = None,
    ):
        super().__init__()
        self._split, self._batch_size, self._numbers, self._steps = split, batch_size, numbers, steps
        self._order_of = functools.lru_cache(maxsize=2)(order_of)  # threads are in the next epoch already
        self._draws_of = draws_of and functools.lru_cache(maxsize=2)(draws_of)
        self._prepare = _compiled(prepare)
        apart = split.decode is not None and workers.worker_count() > 0
        self._gather = workers.gather if apart else IndexedSplit.gather
        self._threads = ThreadPoolExecutor(AHEAD, thread_name_prefix="kzoo-read")
        self._read_ahead: dict[int, Future] = {}
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int):
        number = self._numbers[index]  # whose IndexError ends a loop
        wanted = self._numbers[index : index + AHEAD]
        self._read_ahead = {
            each: self._read_ahead.get(each) or self._threads.submit(self._read, each) for each in wanted
        }
        started = time.perf_counter()
        examples = self._read_ahead[number].result()
        self.waited += time.perf_counter() - started
        return self._prepare(number, examples)

    def _read(self, number: int) -> Example:
        epoch, step = divmod(number, self._steps)
        mine = slice(step * self._batch_size, (step + 1) * self._batch_size)
        numbers = self._order_of(epoch)[mine]
        if self._draws_of is None:
            return self._gather(self._split, numbers)
        elements = {name: array[numbers] for name, array in self._split.elements.items()}
        elements["draw"] = self._draws_of(epoch)[mine]
        return self._gather(dataclasses.replace(self._split, elements=elements, files=None), np.arange(len(numbers)))


class StreamBatches(keras.utils.PyDataset):
    """Batches that come one after the other; the first one begins anew.

    Args:
        source: `tf.data.Dataset` of the number of each batch and its examples.
        count: of the batches.
        prepare: as of `ArrayBatches`.
    """

    def __init__(self, source, count: int, prepare: Prepare):
        super().__init__()
        self._source, self._count, self._prepare = source, count, _compiled(prepare)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int):
        if index >= self._count:
            raise IndexError(index)
        if index == 0:
            self._coming = self._source.as_numpy_iterator()
        with readable_images():
            return self._prepare(*next(self._coming))


def _compiled(prepare: Prepare) -> Prepare:
    if keras.backend.backend() != "jax":
        return prepare
    import jax

    return jax.jit(prepare)
