"""Opens files from anywhere, a job of `kzoo.apart_process`: a file that crashes a library does it there.

An order is `{"kind": "litert", "hdf5" or "numbers", "size": bytes, ...}` and the file's bytes. Memory and time of the
fork that opens them are limited.
"""

import contextlib
import io
import os
import resource
from collections.abc import Callable

import h5py

try:  # now, and not in the fork, whose memory is limited
    from ai_edge_litert.interpreter import Interpreter
except ImportError:  # which only LiteRT files need
    Interpreter = None

MEMORY_BYTES = 2**31  # that a file may take when it is opened, or ...
EXPANSION = 20  # ... this many times its size, if that is more
# Of the processor, all threads together, and one more for every BYTES_PER_SECOND. Files of the precision int16x8 run
# in LiteRT's reference kernels: 1.5 G multiply-adds a second on an AVX2 core, by `kzoo bench cifar_resnet20
# --precisions int16x8 --threads 1 --no-keras`, so that U-Net's 151 G at its own size take 100 s.
SECONDS = {"litert": 600, "hdf5": 2, "numbers": 2}
BYTES_PER_SECOND = 10**7


def run(content: bytes, kind: str, memory_bytes: int = 0, **options) -> str:
    """Opens a file; returns what went wrong."""
    memory_bytes = memory_bytes or max(MEMORY_BYTES, EXPANSION * len(content))
    _limit(_held_bytes() + memory_bytes, SECONDS[kind] + len(content) // BYTES_PER_SECOND)
    return _OPEN[kind](content, **options)


def _held_bytes() -> int:
    """Memory of this process, of the kind that is limited."""
    try:
        with open("/proc/self/statm") as sizes:
            return int(sizes.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return MEMORY_BYTES


def _limit(memory_bytes: int, seconds: int) -> None:
    for limit, most in (
        (resource.RLIMIT_DATA, (memory_bytes, memory_bytes)),
        (resource.RLIMIT_CPU, (seconds, seconds + 1)),  # the first of them says what it is
        (resource.RLIMIT_CORE, (0, 0)),
    ):
        with contextlib.suppress(ValueError, OSError):  # not on every system, or less is allowed already
            resource.setrlimit(limit, most)


def _open_litert(content: bytes, threads: int) -> str:
    """Does what a user of a LiteRT file will do; returns what went wrong."""
    if Interpreter is None:
        return "ai-edge-litert is not installed; pip install ai-edge-litert"
    try:
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
        interpreter.get_tensor_details()
        interpreter._get_ops_details()
        interpreter.invoke()
        for detail in interpreter.get_output_details():
            interpreter.get_tensor(detail["index"])
    except Exception as error:  # of the interpreter, of its bindings
        return " ".join(f"{error}".split()) or type(error).__name__
    return ""


def _open_hdf5(content: bytes) -> str:
    """Looks at everything in an HDF5 file but numbers in chunks; returns what could not be read.

    A dataset that cannot be read is no matter here: only numbers are read of one, where they are as large as declared.
    """
    seen, path = set(), ""

    def look(item) -> None:
        nonlocal path
        path, place = item.name, h5py.h5o.get_info(item.id).addr
        if place in seen:
            return
        seen.add(place)
        for name in item.attrs:
            path = f"the attribute {name!r} of {item.name}"
            item.attrs[name]
        if isinstance(item, h5py.Dataset):
            with contextlib.suppress(Exception):
                if not item.external and not item.is_virtual and item.chunks is None:
                    item[()]
        if isinstance(item, h5py.Group):
            for name in item:
                path = f"{item.name}/{name}"
                if isinstance(item.get(name, getlink=True), h5py.HardLink):
                    look(item[name])

    try:
        with h5py.File(io.BytesIO(content)) as file:
            look(file)
    except Exception as error:  # of HDF5, of its bindings, of memory
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"{path} is damaged, or larger than the file allows ({reason})" if path else reason
    return ""


def _read_numbers(content: bytes, paths: list[str]) -> str:
    """Reads datasets of an HDF5 file whose numbers may be packed; returns what went wrong."""
    with h5py.File(io.BytesIO(content)) as file:
        for path in paths:
            try:
                file[path][()]
            except Exception as error:  # of HDF5, of its filters, of memory
                return f"{path} is damaged, or unpacks to more than it declares ({' '.join(str(error).split())})"
    return ""


_OPEN: dict[str, Callable[..., str]] = {"litert": _open_litert, "hdf5": _open_hdf5, "numbers": _read_numbers}
