"""What `kzoo plan` says of this machine's processor, beside steps that were really trained on it.

    python recipes/studies/planned_and_measured.py [--recipes cifar10_resnet20 quickstart]

The steps of each recipe are trained with Keras on JAX, whose program the plan is of, and on TensorFlow, by turns with
what measures the processor for the plan. Each engine is a process of its own on one core, and what counts is the time
of that core which it got, so that other work does not matter. The table goes to saved_models/plan/processor.md, with
every turn in processor.json.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro
from rich.console import Console
from sheets import Sheet, in_markdown, on_console

from kzoo.files import write_text

JAX, TENSORFLOW = "jax", "tensorflow"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured."""

    recipes: tuple[str, ...] = ("cifar10_resnet20", "cifar10_resnet20_cbam", "fashion_mnist_resnet20", "quickstart")
    """Recipes, at their own batch sizes."""
    turns: int = 7
    """Number of turns."""
    output_dir: Path = Path("saved_models/plan")
    """Where the table goes."""


def answer_turns(name: str) -> None:
    """For each line read: with JAX, what the plan predicts at this moment, and the milliseconds of a trained step."""
    import time

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before libraries make threads

    import keras
    import numpy as np

    from kzoo.planning.sizes import size_of
    from kzoo.planning.step import Step, blank_dataset
    from kzoo.recipe import load_recipe

    recipe = load_recipe(name)
    batch_size = recipe.schedule.batch_size
    data = blank_dataset(recipe, size_of(recipe.data.dataset, None, None))
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (batch_size, *data.image_shape)).astype("float32")
    targets = np.eye(len(data.classes), dtype="float32")[rng.integers(len(data.classes), size=batch_size)]
    predict = None
    if keras.backend.backend() == JAX:
        import jax

        from kzoo.planning.machine import measured_limits
        from kzoo.planning.roofline import step_time

        step = Step(recipe, data)
        program, model = step.compiled(batch_size, jax.devices()[:1]), step.model
        predict = lambda: step_time(program, measured_limits(time.process_time))  # noqa: E731
    else:
        from kzoo.tasks import task_of
        from kzoo.train.loop import compiled_model

        model = compiled_model(recipe, task_of(recipe), data, data.train.size // batch_size)
    model.train_on_batch(images, targets)
    model.train_on_batch(images, targets)
    print(json.dumps({"batch_size": batch_size}), flush=True)
    for _ in sys.stdin:
        time_of = predict() if predict else None
        began = time.process_time()
        model.train_on_batch(images, targets)
        measured = 1e3 * (time.process_time() - began)
        answer = {"measured_ms": measured}
        if time_of is not None:
            answer |= {"planned_ms": 1e3 * time_of.step, "bound": time_of.bound}
        print(json.dumps(answer), flush=True)


def measure(name: str, turns: int) -> dict:
    """All turns of a recipe."""
    with tempfile.TemporaryDirectory() as logs:
        processes = {}
        for backend in (JAX, TENSORFLOW):
            environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
            pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            with Path(logs, backend).open("w") as errors:
                command = [sys.executable, __file__, "turns", name]
                processes[backend] = subprocess.Popen(command, stderr=errors, **pipes)
            line = processes[backend].stdout.readline()
            if not line:
                raise SystemExit(Path(logs, backend).read_text())
        found = {"batch_size": json.loads(line)["batch_size"], "turns": []}
        for _ in range(turns):
            turn = {}
            for backend, process in processes.items():
                print(file=process.stdin, flush=True)
                turn[backend] = json.loads(process.stdout.readline())
            found["turns"].append(turn)
        for process in processes.values():
            process.stdin.close()
            process.wait()
    return found


def sheet(results: dict[str, dict]) -> Sheet:
    """Images a second, planned and trained, the medians of the turns."""
    rows = []
    for name, found in results.items():
        batch, turns = found["batch_size"], found["turns"]

        def rate(key: str, engine: str, batch=batch, turns=turns) -> float:
            return statistics.median(1e3 * batch / turn[engine][key] for turn in turns)

        ratios = [turn[JAX]["measured_ms"] / turn[JAX]["planned_ms"] for turn in turns]
        rows.append(
            (
                name,
                f"{batch}",
                f"{rate('planned_ms', JAX):.0f}",
                turns[0][JAX]["bound"],
                f"{rate('measured_ms', JAX):.0f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{rate('measured_ms', TENSORFLOW):.0f}",
            )
        )
    columns = (
        "recipe",
        "batch",
        "planned",
        "bound by",
        "trained, JAX",
        "time / planned (range)",
        "trained, TensorFlow",
    )
    return "One core of this processor, images a second", columns, rows


def main(options: Options) -> None:
    """Measures, prints and writes."""
    options.output_dir.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in options.recipes:
        results[name] = measure(name, options.turns)
        Console().print(on_console(sheet(results)))
        write_text(options.output_dir / "processor.json", json.dumps(results, indent=1) + "\n")
        write_text(options.output_dir / "processor.md", in_markdown(sheet(results)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["turns"]:  # what `measure` starts
        answer_turns(sys.argv[2])
    else:
        main(tyro.cli(Options, description=__doc__))
