"""How fast a training step is on the processor: Keras as it comes, kzoo on TensorFlow and on JAX, and PyTorch.

    python recipes/studies/training_speed.py [--torch-python PATH] [--cases resnet20 resnet50 unet]

trains each network of `CASES` in each way by turns of a few steps, each in a process of its own as TensorFlow asks
for oneDNN once, prints a table of images a second, and writes it with every turn to saved_models/training_speed.
PyTorch takes part where it is installed, in this environment or in the one of `--torch-python`.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from sheets import Sheet, in_markdown, on_console

from kzoo.files import write_text
from kzoo.onednn import VARIABLE, processor_features

TORCH = "PyTorch, channels last"
# the environment, in which TF_ENABLE_ONEDNN_OPTS is kzoo's choice if it is absent, and whether the batch normalisation
# is Keras' own
ENGINES: dict[str, tuple[dict[str, str], bool]] = {
    "before": ({VARIABLE: "0"}, True),
    "oneDNN": ({VARIABLE: "1"}, True),
    "kzoo": ({}, False),
    "kzoo on JAX": ({"KERAS_BACKEND": "jax"}, False),
}
INSTRUCTIONS = ("avx", "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8")


@dataclasses.dataclass(frozen=True)
class Case:
    """One network, and how many steps it takes in a turn; what is done before the first turn traces and warms up."""

    model: str
    batch: int
    side: int
    turns: int
    steps: int


CASES = {
    "resnet20": Case("cifar_resnet20", batch=128, side=32, turns=12, steps=4),
    "resnet50": Case("resnet50", batch=16, side=224, turns=3, steps=1),
    "unet": Case("unet_padded", batch=4, side=128, turns=3, steps=1),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured."""

    cases: tuple[Literal["resnet20", "resnet50", "unet"], ...] = ("resnet20", "resnet50", "unet")
    """Networks to train."""
    torch_python: Path = Path(sys.executable)
    """Python that has torch."""
    output_dir: Path = Path("saved_models/training_speed")
    """Where the table goes."""


def answer_turns(name: str, keras_own: bool) -> None:
    """Trains with `fit` on one batch, as a user does; for each line read, the milliseconds of each step of a turn."""
    import time

    import kzoo  # isort: skip  before Keras, as it decides on oneDNN
    import keras
    import numpy as np

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.times = []

        def on_train_batch_begin(self, batch, logs=None):
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            self.times.append(1000 * (time.perf_counter() - self.start))

    case, clock = CASES[name], Clock()
    shape = (case.side, case.side, 3)
    model = kzoo.build(case.model, input_shape=shape, classifier_activation=None, include_preprocessing=False)
    if keras_own:
        model = keras.models.clone_model(model)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    optimizer.exclude_from_weight_decay(var_list=[w for w in model.trainable_weights if len(w.shape) < 2])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(case.batch, *shape)).astype("float32")
    labels = rng.integers(model.output.shape[-1], size=(case.batch, *model.output.shape[1:-1]))

    def steps() -> list[float]:
        fit = dict(batch_size=case.batch, epochs=case.steps, shuffle=False, verbose=0, callbacks=[clock])
        model.fit(images, labels, **fit)
        return clock.times

    steps()
    parameters = kzoo.zoo.count_parameters(model)
    print(json.dumps({"parameters": parameters, "version": f"Keras {keras.__version__}"}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(steps()), flush=True)


class Process:
    """An engine that holds one network in a process of its own, and computes only while it is asked to."""

    def __init__(self, name: str, engine: str, options: Options, log: Path):
        case, environment = CASES[name], dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
        environment.pop(VARIABLE, None)
        if engine == TORCH:
            script = Path(__file__).with_name("training_speed_torch.py")
            command = [options.torch_python, script, name, case.batch, case.side, case.steps]
        else:
            own, keras_own = ENGINES[engine]
            environment |= own
            command = [sys.executable, __file__, "turns", name, int(keras_own)]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        with log.open("w") as errors:
            self.process = subprocess.Popen(list(map(str, command)), stderr=errors, **pipes)
        self.engine, self.batch, self.log = engine, case.batch, log
        self.result = self._read() | {"images_per_s": []}

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.engine} failed:\n{self.log.read_text()}")
        return json.loads(line)

    def turn(self) -> None:
        """Some steps, of which the median counts."""
        print(file=self.process.stdin, flush=True)
        self.result["images_per_s"].append(1000 * self.batch / statistics.median(self._read()))

    def end(self) -> None:
        """Closes the process, which then has nothing to wait for."""
        self.process.stdin.close()
        self.process.wait()


def measure_all(name: str, options: Options) -> dict[str, dict]:
    """Each engine's images a second in every turn, by turns of seconds, so that a busy machine hits all alike."""
    engines = list(ENGINES)
    if has_torch(options.torch_python):
        engines.append(TORCH)
    else:
        print(f"{options.torch_python} has no torch: `pip install torch`, or give --torch-python")
    with tempfile.TemporaryDirectory() as logs:
        processes = [Process(name, engine, options, Path(logs, engine)) for engine in engines]
        for turn in range(CASES[name].turns):
            for process in processes:
                process.turn()
            speeds = ", ".join(f"{each.engine} {each.result['images_per_s'][-1]:.1f}" for each in processes)
            print(f"{name}, turn {turn + 1} of {CASES[name].turns}, images/s: {speeds}", flush=True)
        for process in processes:
            process.end()
    counts = {process.engine: process.result["parameters"] for process in processes}
    if len(set(counts.values())) > 1:
        raise SystemExit(f"{name} is not one network: parameters {counts}")
    return {process.engine: process.result for process in processes}


def has_torch(python: Path) -> bool:
    """Whether that Python imports torch."""
    return subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 0


def sheet(results: dict) -> Sheet:
    """Images a second: the median of the turns, and the best."""
    engines = [engine for engine in (*ENGINES, TORCH) if any(engine in found for found in results.values())]

    def cell(found: dict, engine: str) -> str:
        if engine not in found:
            return "-"
        speeds = found[engine]["images_per_s"]
        return f"{statistics.median(speeds):.1f} ({max(speeds):.1f})"

    rows = []
    for name, found in results.items():
        case = CASES[name]
        gain = f"{ratio(found, 'kzoo', 'before'):.2f}"
        against = f"{ratio(found, 'kzoo', TORCH):.2f}" if TORCH in found else "-"
        title = f"{case.model}, {case.batch} of {case.side}×{case.side}"
        rows.append((title, *(cell(found, engine) for engine in engines), gain, against))
    columns = ("network and batch", *engines, "kzoo / before", "kzoo / PyTorch")
    return "Training, images a second: median of the turns (best)", columns, rows


def ratio(found: dict, engine: str, other: str) -> float:
    """How much faster one is than the other: the median over the turns, each of which compares what ran together."""
    pairs = zip(found[engine]["images_per_s"], found[other]["images_per_s"], strict=True)
    return statistics.median(one / two for one, two in pairs)


PAGE = """# How fast a training step is on the processor

Measured on {cores} CPU cores with {instructions} by

    python recipes/studies/training_speed.py

"before" is Keras on TensorFlow as it comes, with its own batch normalisation and without oneDNN, "oneDNN" the same
with it, "kzoo" what `import kzoo` and `kzoo.build` do: oneDNN and the fused operation; on JAX a step is one XLA
program, and the normalisation Keras' own. The same network, loss and optimizer everywhere,
float32, by turns of a few steps; ratios are medians over the turns. {versions}.

"""


def main(options: Options) -> dict:
    """Measures, prints and writes everything, networks that were measured before included; returns all of it."""
    written = options.output_dir / "speed.json"
    before = json.loads(written.read_text())["cases"] if written.exists() else {}
    results = before | {name: measure_all(name, options) for name in options.cases}
    instructions = [each for each in INSTRUCTIONS if each in processor_features()]
    table = sheet(results)
    Console().print(on_console(table))
    print(f"{os.cpu_count()} CPU cores with {', '.join(instructions) or 'unknown instructions'}")
    versions = {row["version"] for found in results.values() for row in found.values()}
    page = PAGE.format(
        cores=os.cpu_count(),
        instructions=", ".join(instructions) or "unknown instructions",
        versions=", ".join(sorted(versions)),
    )
    options.output_dir.mkdir(parents=True, exist_ok=True)
    result = {"cores": os.cpu_count(), "instructions": instructions, "cases": results}
    write_text(written, json.dumps(result, indent=2) + "\n")
    write_text(options.output_dir / "README.md", page + in_markdown(table))
    return result


if __name__ == "__main__":
    if sys.argv[1:2] == ["turns"]:  # what `Process` starts
        answer_turns(sys.argv[2], sys.argv[3] == "1")
    else:
        main(tyro.cli(Options, description=__doc__))
