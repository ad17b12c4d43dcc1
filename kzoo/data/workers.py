"""Processes that decode pictures: threads of one process wait for each other wherever Python itself computes."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kzoo.data.split import Example, IndexedSplit, Specs, decoded
from kzoo.errors import DatasetError

CORES = 4  # of a processor from which on processes are worth their start
AT_ONCE = 16  # examples of one order
IDLE_SECONDS = 120  # after which the processes end


def gather(split: IndexedSplit, numbers: np.ndarray) -> Example:
    """What `split.gather(numbers)` gives, decoded in processes that stay for the next batch.

    They start without the script that trains, which needs no `if __name__ == "__main__"`.

    Raises:
        DatasetError: a file that cannot be read, or a process that was ended from outside.
    """
    from loky import get_reusable_executor
    from loky.process_executor import BrokenProcessPool

    assert split.decode is not None
    executor = get_reusable_executor(max_workers=worker_count(), timeout=IDLE_SECONDS)
    parts = [numbers[start : start + AT_ONCE] for start in range(0, len(numbers), AT_ONCE)]
    try:
        orders = [
            executor.submit(_decode, split.decode, split.specs, {name: a[part] for name, a in split.elements.items()})
            for part in parts
        ]
        done = [order.result() for order in orders]
    except BrokenProcessPool as error:
        raise DatasetError(
            f"a process that decodes images ended before it was done, perhaps as memory was short: {error}"
        ) from error
    return {name: np.concatenate([part[name] for part in done]) for name in split.specs}


def worker_count() -> int:
    """Number of processes: one for each core but the one that trains; 0 where threads do as well."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores - 1 if cores >= CORES else 0


def _decode(decode: Callable[..., Example], specs: Specs, elements: Mapping[str, Any]) -> Example:
    """The examples of some elements, in a process of its own."""
    count = len(next(iter(elements.values())))
    examples = [decoded(decode, {name: array[index] for name, array in elements.items()}) for index in range(count)]
    return {name: np.stack([example[name] for example in examples]) for name in specs}
