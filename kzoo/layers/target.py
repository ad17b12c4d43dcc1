"""What a graph is traced for: a few layers have an equal form that mobile GPUs take and others do not need."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_GPU = ContextVar("kzoo_for_gpu", default=False)


@contextlib.contextmanager
def for_gpu(wanted: bool = True) -> Iterator[None]:
    """What is traced until the block ends is for a mobile GPU, or not: larger constants, and no op that it refuses."""
    token = _GPU.set(wanted)
    try:
        yield
    finally:
        _GPU.reset(token)


def is_for_gpu() -> bool:
    """Whether the graph that is being traced is for a mobile GPU."""
    return _GPU.get()
