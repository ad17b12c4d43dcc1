"""What this machine's processor does at most, measured in a second as no table knows every processor."""

import os
import statistics
import time
from collections.abc import Callable

import jax

from kzoo.planning.roofline import Limits

IMAGES, SIDE, CHANNELS = 32, 16, 64  # of the convolution
COPIED, TIMES = 2**28, 5


def measured_limits(clock: Callable[[], float] = time.perf_counter) -> Limits:
    """The operations a second of a convolution and its gradients, the bytes a second of a copy, and the memory.

    Convolutions in training reach a fraction of what a product of large matrices does.

    Args:
        clock: what tells the seconds.
    """
    images = jax.numpy.ones((IMAGES, SIDE, SIDE, CHANNELS), "float32")
    kernel = jax.numpy.ones((3, 3, CHANNELS, CHANNELS), "float32")
    convolution = _seconds(clock, jax.jit(jax.grad(_convolve, argnums=(0, 1))), images, kernel)
    flops = 3 * 2 * images.size * kernel.size / CHANNELS
    copy = _seconds(clock, jax.jit(lambda array: array + 1), jax.numpy.ones(COPIED // 4, "float32"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Limits(flops / convolution, 2 * COPIED / copy, memory, float("inf"), serial=True)


def _convolve(images, kernel):
    convolved = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return (convolved**2).sum()


def _seconds(clock: Callable[[], float], function: Callable, *arrays) -> float:
    """The median of a few calls, after one that compiles: what other work leaves of the machine."""
    jax.block_until_ready(function(*arrays))
    times = []
    for _ in range(TIMES):
        began = clock()
        jax.block_until_ready(function(*arrays))
        times.append(clock() - began)
    return statistics.median(times)
