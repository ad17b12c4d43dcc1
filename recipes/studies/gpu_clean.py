"""What a mobile GPU refuses of every family, before and after `--target gpu`, and what the CPU pays for it.

    python recipes/studies/gpu_clean.py

converts a narrow model of each family, and a small ResNet with each attention, for both targets, and writes a table
and JSON to saved_models/gpu_clean. No GPU takes part: the rules are those of `kzoo.edge.gpu`.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from sheets import Sheet, in_markdown, on_console

import kzoo
from kzoo.check.probe import pixels, randomise, relative_error
from kzoo.edge import LiteRTModel
from kzoo.edge.convert import convert
from kzoo.edge.gpu import LARGEST_RANK, gpu_in_words, gpu_refuses, read_ops
from kzoo.files import write_text
from kzoo.layers import ATTENTION
from kzoo.layers.target import for_gpu
from kzoo.models.inception import without_auxiliary
from kzoo.registry import lookup

FAMILIES = (
    "airbench94",
    "fpn",
    "googlenet",
    "inception_v3",
    "nat_tiny",
    "residual_attention56",
    "resnet50",
    "simple_cnn",
    "swin_tiny",
    "unet_padded",
    "vgg16_bn",
)
TARGETS = ("cpu", "gpu")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured."""

    repeats: int = 60
    """Number of runs of which the median is taken."""
    output_dir: Path = Path("saved_models/gpu_clean")
    """Directory of the table."""


def subjects() -> dict[str, keras.Model]:
    """The models, with random weights and statistics, folded."""
    made = {}
    for name in FAMILIES:
        entry = lookup(name)
        made[name] = kzoo.build(name, input_shape=(entry.narrow_size, entry.narrow_size, 3), **entry.narrow)
    for attention in ATTENTION:
        options = dict(input_shape=(32, 32, 3), depths=(1, 1), widths=(32, 64))
        made[f"resnet with {attention}"] = kzoo.build("cifar_resnet20", attention=attention, **options)
    return {name: kzoo.fold_batch_norm(without_auxiliary(randomise(model))) for name, model in made.items()}


def converted(model: keras.Model, target: str) -> bytes:
    """The float32 file."""
    with for_gpu(target == "gpu"):
        return convert(model)


def measure(name: str, model: keras.Model, repeats: int) -> dict:
    """A row of the table."""
    images = pixels(2, *model.input_shape[1:])
    expected = np.array(model(images))
    row, runs = {"model": name}, {}
    for target in TARGETS:
        if target == "gpu" and not row["cpu"]["refused"]:  # no mask is in it, which alone would make a difference
            return row | {"gpu": row["cpu"], "ratio": 1.0}
        content = converted(model, target)
        lite = LiteRTModel(content, num_threads=1)
        row[target] = {
            "refused": gpu_refuses(content),
            "high_rank": sum(
                any(len(tensor.shape) > LARGEST_RANK for tensor in (*op.inputs, *op.outputs))
                for op in read_ops(content)
            ),
            "error": relative_error(lite.predict(images), expected),
            "size_bytes": len(content),
        }
        runs[target] = partial(lite.predict, images[:1])
    return row | {"ratio": ratio(runs, repeats)}


def ratio(runs: dict[str, Callable], repeats: int) -> float:
    """The median of ratios of the seconds that the thread was at work, which others on the machine hardly touch."""
    ratios = []
    for _ in range(repeats):
        seconds = {}
        for target, run in runs.items():
            run()
            start = time.thread_time()
            run()
            seconds[target] = time.thread_time() - start
        ratios.append(seconds["gpu"] / seconds["cpu"])
    return statistics.median(ratios)


def sheet(rows: list[dict]) -> Sheet:
    """The results as text."""
    columns = (
        "model",
        "rank above 4",
        "with --target gpu",
        "refused",
        "with --target gpu",
        "error",
        "size",
        "time on the CPU",
    )
    lines = [
        (
            row["model"],
            str(row["cpu"]["high_rank"]),
            str(row["gpu"]["high_rank"]),
            gpu_in_words(row["cpu"]["refused"]),
            gpu_in_words(row["gpu"]["refused"]),
            f"{row['gpu']['error']:.0e}",
            f"× {row['gpu']['size_bytes'] / row['cpu']['size_bytes']:.2f}",
            "same file" if row["ratio"] == 1 else f"× {row['ratio']:.2f}",
        )
        for row in rows
    ]
    return "Narrow models, float32", columns, lines


PAGE = """# What a mobile GPU refuses

Written by

    python recipes/studies/gpu_clean.py

which also writes [gpu_clean.json](gpu_clean.json). The rules are those of TFLite's GPU delegate, read in its source
and held as data in [gpu.py](../../kzoo/edge/gpu.py); no GPU took part. "Error" is that of the file for the GPU to
Keras, over the norm. Times are seconds that one thread worked, medians of ratios by turns, of maps so small that a
twentieth more or less means nothing.

Most of it needs no option: windows are cut, pixels merged and relative positions read off in rank 4, and the layer
normalisation of Swin and NAT multiplies no vector by a map of one channel. `--target gpu` writes the masks of shifted
windows and of neighbourhoods out for every head.

"""


def main(options: Options) -> list[dict]:
    """Measures, prints and writes everything; returns the rows."""
    options.output_dir.mkdir(parents=True, exist_ok=True)
    rows = [measure(name, model, options.repeats) for name, model in track(subjects().items(), "converting")]
    result = sheet(rows)
    Console().print(on_console(result))
    write_text(options.output_dir / "gpu_clean.json", json.dumps(rows, indent=2) + "\n")
    write_text(options.output_dir / "README.md", PAGE + in_markdown(result))
    return rows


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
