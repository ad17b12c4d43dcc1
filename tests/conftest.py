"""What every test shares: quiet TensorFlow, fixed seeds, no state from the test before."""

import contextlib
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# what is compiled here runs once or twice: without optimisation XLA takes half the time, and computes the same
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# oneDNN's kernels for AVX-512 in TensorFlow 2.21 corrupt the heap in gradients of narrow nets (those for AVX2 do not)
with contextlib.suppress(OSError):
    if " avx512f " in Path("/proc/cpuinfo").read_text():
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

# before Keras, because it sets what TensorFlow reads when it loads
from kzoo import registry
from kzoo.taps import mark

# isort: split
import keras
import pytest

from kzoo.check.matrix import PER_PROCESS

MOST_PROCESSES = 4


def pytest_collection_finish():
    """Takes what is loaded by now out of garbage collection: a pass over TensorFlow's modules takes 0.3 s."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config, items):
    """No slow test among those of another mark: `-m` on the command line takes the place of `not slow`."""
    if "slow" not in config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """A process for each core, of up to 3 GB, at most four; for a few files this one, as each starts for seconds."""
    whole = config.args == config.getini("testpaths") or config.args == ["tests"]
    return min(os.cpu_count() or 1, MOST_PROCESSES) if whole else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps the tests of a file in one process, so that what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(autouse=True, scope="module")
def free_memory():
    """Frees the models of a module when it is through; after each test this would cost more than most tests."""
    yield
    keras.backend.clear_session()


@pytest.fixture(autouse=True)
def fresh_keras():
    """No names of layers and no random state from the test before."""
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture
def hasty(monkeypatch):
    """Lets runs end sooner: their pictures are empty files, and what they leave is timed once."""
    from matplotlib.figure import Figure

    from kzoo.report import measure

    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: Path(path).touch())
    monkeypatch.setattr(measure, "LATENCY_ROUNDS", 1)


@pytest.fixture
def compiling(request):
    """Calls a function in which XLA compiles a model.

    TensorFlow never lets go of what XLA compiled, and Linux allows a process the memory maps of some 40 models. So
    those of slow tests are compiled in processes that end after `PER_PROCESS`.
    """
    if not request.node.get_closest_marker("slow"):
        return lambda function, *args: function(*args)
    pool = request.getfixturevalue("pool")
    return lambda function, *args: pool.submit(call_fresh, function, *args).result()


@pytest.fixture(scope="module")
def pool():
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=PER_PROCESS) as pool:
        yield pool


def call_fresh(function, *args):
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return function(*args)


@pytest.fixture
def without_values():
    """Lets variables be without values: names, shapes, sizes and costs of full models in a third of the time."""
    with keras.StatelessScope(initialize_variables=False):
        yield


@dataclass(frozen=True)
class SmallConfig:
    """Of the models that tests register for themselves."""

    total_stride: int = 2
    width: int = 6


@pytest.fixture
def add(monkeypatch):
    """Registers a small model with a layer of one's own behind its stem, until the test ends."""

    def register(name, layer=None, levels=(1, 2)):
        def features(x, config):
            x = keras.layers.Conv2D(config.width, 3, 2, "same", use_bias=False, name="conv")(x)
            x = keras.layers.BatchNormalization(name="bn")(x)
            first = mark(layer(x) if layer else x, levels[0])
            x = keras.layers.ReLU(name="relu")(first)
            x = keras.layers.Conv2D(config.width, 3, 2, "same", name="conv2")(x)
            return {f"p{levels[0]}": first, f"p{levels[1]}": mark(x, levels[1])}

        def head(maps, num_classes, activation, config):
            x = keras.layers.GlobalAveragePooling2D(name="head_pool")(maps[f"p{levels[1]}"])
            return keras.layers.Dense(num_classes, activation, name="head_dense")(x)

        entry = registry.Entry(name, "small", SmallConfig(), features, head, (32, 32, 3), 10, "tf", ())
        monkeypatch.setitem(registry._ENTRIES, name, entry)

    return register
