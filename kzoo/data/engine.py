"""Batches for backends other than TensorFlow: read ahead of the step, and changed by compiled programs.

With a `keras.distribution` in force when they are made, each process reads the rows of its own devices; what is random
is drawn for the whole batch, wherever its rows are, so that a batch is the same on any number of devices.

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
from kzoo.data.shares import Shares, shares_in_force
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
        self._shares = shares_in_force()
        self._prepare = _compiled(prepare, self._shares)
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
        return self._prepare(number, examples, len(self._members(number)))

    def _members(self, number: int) -> np.ndarray:
        """The numbers of the examples of a batch."""
        return self._of_batch(self._order_of, number)

    def _of_batch(self, of_epoch: Callable[[int], np.ndarray], number: int) -> np.ndarray:
        """The part of an epoch's array that is of a batch."""
        epoch, step = divmod(number, self._steps)
        return of_epoch(epoch)[step * self._batch_size :][: self._batch_size]

    def _read(self, number: int) -> Example:
        members = self._members(number)
        mine = np.arange(len(members)) if self._shares is None else self._shares.rows(len(members))
        if self._draws_of is None:
            return self._gather(self._split, members[mine])
        elements = {name: array[members[mine]] for name, array in self._split.elements.items()}
        elements["draw"] = self._of_batch(self._draws_of, number)[mine]
        return self._gather(dataclasses.replace(self._split, elements=elements, files=None), np.arange(len(mine)))


class StreamBatches(keras.utils.PyDataset):
    """Batches that come one after the other; the first one begins anew.

    Args:
        source: `tf.data.Dataset` of the number of each batch and its examples.
        count: of the batches.
        prepare: as of `ArrayBatches`.
    """

    def __init__(self, source, count: int, prepare: Prepare):
        super().__init__()
        self._source, self._count, self._shares = source, count, shares_in_force()
        self._prepare = _compiled(prepare, self._shares)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int):
        if index >= self._count:
            raise IndexError(index)
        if index == 0:
            self._coming = self._source.as_numpy_iterator()
        with readable_images():
            number, examples = next(self._coming)
        size = len(next(iter(examples.values())))
        if self._shares is not None:
            rows = self._shares.rows(size)
            examples = {name: array[rows] for name, array in examples.items()}
        return self._prepare(number, examples, size)


def _compiled(prepare: Prepare, shares: Shares | None) -> Callable[[Any, Example, int], tuple[Any, Any]]:
    """`prepare`, of the examples of a batch that this process has, and of the size of the whole batch."""
    if keras.backend.backend() != "jax":
        return lambda number, examples, size: prepare(number, examples)
    import jax

    if shares is None:
        compiled = jax.jit(prepare)
        return lambda number, examples, size: compiled(number, examples)
    by_size = functools.cache(lambda size: jax.jit(prepare, out_shardings=shares.sharding(size)))
    return lambda number, examples, size: by_size(size)(number, shares.put(examples, size))
