"""What this machine's processor does at most, measured in a second as no table knows every processor."""

import os
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from kzoo.planning.roofline import Limits

SIDE, COPIED, TIMES = 2048, 2**28, 5


def measured_limits() -> Limits:
    """The operations a second of a product of matrices, the bytes a second of a copy, and the memory; no network."""
    square = jax.numpy.ones((SIDE, SIDE), "float32")
    product = _seconds(jax.jit(jax.numpy.dot), square, square)
    values = np.ones(COPIED // 4, "float32")
    copy = _seconds(jax.jit(lambda array: array + 1), jax.numpy.asarray(values))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Limits(2 * SIDE**3 / product, 2 * COPIED / copy, memory, float("inf"))


def _seconds(function: Callable, *arrays) -> float:
    """The median of a few calls, after one that compiles: what other work leaves of the machine."""
    jax.block_until_ready(function(*arrays))
    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        jax.block_until_ready(function(*arrays))
        times.append(time.perf_counter() - began)
    return statistics.median(times)
