"""What attention costs: global against windowed as the map grows, the local mechanisms, and each one in ResNet-50.

    python recipes/studies/attention_cost.py

prints three tables, and writes them as a page and as JSON, with the curves as a picture, to
saved_models/attention_cost.
"""

import dataclasses
import json
import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from sheets import Sheet, in_markdown, interleaved_ms, median_ms, on_console

import kzoo
from kzoo.edge import LiteRTModel
from kzoo.edge.convert import convert
from kzoo.files import atomic_path, write_text
from kzoo.layers import (
    ATTENTION,
    MultiHeadSelfAttention,
    NeighborhoodAttention,
    StandAloneSelfAttention,
    WindowAttention,
)
from kzoo.layers.dot_product import split_heads, weigh

LARGEST_MATRIX = 2**29  # logits of all heads; beyond, global attention is timed in slices of its queries


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured."""

    sides: tuple[int, ...] = (28, 56, 112, 224)
    """Sides of the square maps."""
    channels: int = 96
    """Number of channels of every map."""
    num_heads: int = 3
    """Number of heads of every mechanism; with 96 channels that of Swin-T's first stage."""
    window_size: int = 7
    """Side of the windows of window attention, and the kernel size of the local ones."""
    local_side: int = 56
    """Side of the map on which the local mechanisms are compared."""
    repeats: int = 5
    """Number of runs of which the median is taken."""
    output_dir: Path = Path("saved_models/attention_cost")
    """Directory of the tables and the chart."""


def model_of(layer: keras.layers.Layer, side: int, channels: int) -> keras.Model:
    """The layer alone on a square map."""
    inputs = keras.Input((side, side, channels))
    return keras.Model(inputs, layer(inputs))


def feature_map(side: int, channels: int) -> np.ndarray:
    """One map of normal values."""
    return np.random.default_rng(0).normal(size=(1, side, side, channels)).astype("float32")


def windowed_ms(side: int, options: Options) -> float:
    """Time of shifted window attention on one map."""
    layer = WindowAttention(options.num_heads, options.window_size, options.window_size // 2)
    model, x = model_of(layer, side, options.channels), feature_map(side, options.channels)
    run = tf.function(model)
    return median_ms(lambda: run(x).numpy(), options.repeats)


def global_ms(side: int, options: Options) -> float:
    """Time of global attention on one map; where its matrix would not fit, slice by slice of the queries."""
    layer = MultiHeadSelfAttention(options.num_heads)
    x = feature_map(side, options.channels)
    if options.num_heads * side**4 <= LARGEST_MATRIX:
        whole = tf.function(model_of(layer, side, options.channels))
        return median_ms(lambda: whole(x).numpy(), options.repeats)

    length = side**2
    layer.build((None, length, options.channels))
    step = max(1, LARGEST_MATRIX // (options.num_heads * length))
    attend_slice = tf.function(lambda query, key, value: weigh(query, key) @ value, reduce_retracing=True)

    def run():
        qkv = layer.qkv(x.reshape(1, length, -1))
        q, k, v = (
            split_heads(qkv[..., i * options.channels : (i + 1) * options.channels], options.num_heads)
            for i in range(3)
        )
        for first in range(0, length, step):
            attend_slice(q[:, :, first : first + step], k, v).numpy()

    return median_ms(run, 1)


def fitted_exponent(sides, times_ms) -> float:
    """e of the best `time = c · (pixels)^e`."""
    return float(np.polyfit(np.log([side**2 for side in sides]), np.log(times_ms), 1)[0])


def measure_growth(options: Options) -> dict:
    """Times and multiply-adds of both at every side."""
    rows = []
    for side in track(options.sides, "global against windowed"):
        shape = (1, side, side, options.channels)
        rows.append(
            {
                "side": side,
                "global_ms": global_ms(side, options),
                "window_ms": windowed_ms(side, options),
                "global_macs": MultiHeadSelfAttention(options.num_heads).macs(shape),
                "window_macs": WindowAttention(options.num_heads, options.window_size).macs(shape),
                "global_in_slices": options.num_heads * side**4 > LARGEST_MATRIX,
            }
        )
    return {
        "rows": rows,
        "global_exponent": fitted_exponent(options.sides, [row["global_ms"] for row in rows]),
        "window_exponent": fitted_exponent(options.sides, [row["window_ms"] for row in rows]),
    }


def measure_local(options: Options) -> list[dict]:
    """Each local mechanism on one map, as a float32 LiteRT file: time and how much it writes."""
    heads, size, side = options.num_heads, options.window_size, options.local_side
    mechanisms = {
        "window": WindowAttention(heads, size),
        "window, shifted": WindowAttention(heads, size, size // 2),
        "neighborhood": NeighborhoodAttention(heads, size),
        "stand-alone": StandAloneSelfAttention(options.channels, size, heads),
        "global": MultiHeadSelfAttention(heads),
    }
    x, rows = feature_map(side, options.channels), []
    runs = {}
    for name, layer in track(mechanisms.items(), "local mechanisms"):
        model = model_of(layer, side, options.channels)
        graph, lite = tf.function(model), LiteRTModel(convert(model))
        runs[f"{name} litert_ms"] = lambda lite=lite: lite.predict(x)
        runs[f"{name} tensorflow_ms"] = lambda graph=graph: graph(x).numpy()
        rows.append(
            {
                "mechanism": name,
                "macs": layer.macs(x.shape),
                "written_bytes": lite.activation_bytes(),
                "partitions": lite.xnnpack_partitions(),
            }
        )
    times = interleaved_ms(runs, 4 * options.repeats)
    return [
        row | {kind: times[f"{row['mechanism']} {kind}"] for kind in ("litert_ms", "tensorflow_ms")} for row in rows
    ]


def measure_in_resnet50() -> list[dict]:
    """Parameters and multiply-adds of ResNet-50 with each mechanism that `kzoo.build` knows by name."""
    rows = []
    for attention in track([None, *ATTENTION], "in ResNet-50"):
        info = kzoo.describe("resnet50", attention=attention)
        rows.append(
            {
                "attention": attention,
                "slot": ATTENTION[attention].slot if attention else None,
                "parameters": info.trainable_parameters,
                "macs": info.macs,
            }
        )
    return rows


def draw(growth: dict, options: Options) -> Figure:
    """Time over pixels, on logarithmic axes, with lines of the growth that the multiply-adds predict."""
    figure = Figure(figsize=(7, 4.5), layout="constrained", dpi=100)
    axis = figure.subplots()
    pixels = [row["side"] ** 2 for row in growth["rows"]]
    for kind, label, colour in (("global", "global", "tab:red"), ("window", "windows of 7×7, shifted", "tab:blue")):
        times = [row[f"{kind}_ms"] for row in growth["rows"]]
        macs = [row[f"{kind}_macs"] for row in growth["rows"]]
        label = label.replace("7×7", f"{options.window_size}×{options.window_size}")
        axis.loglog(
            pixels, times, "o-", color=colour, label=f"{label}: time grows as pixels^{growth[f'{kind}_exponent']:.2f}"
        )
        axis.loglog(
            pixels, [times[-1] * each / macs[-1] for each in macs], ":", color=colour, label="its multiply-adds"
        )
    axis.set_xticks(pixels, [f"{row['side']}²" for row in growth["rows"]])
    axis.minorticks_off()
    axis.set_xlabel("pixels of the map")
    axis.set_ylabel("milliseconds for one map")
    axis.set_title(f"Self-attention, {options.channels} channels, {options.num_heads} heads")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def sheets(growth: dict, local: list[dict], in_resnet50: list[dict], options: Options) -> list[Sheet]:
    """The results as text."""
    rows = [
        (
            f"{row['side']}²" + (" (in slices)" if row["global_in_slices"] else ""),
            f"{row['global_ms']:.1f} ms",
            f"{row['window_ms']:.1f} ms",
            f"{row['global_ms'] / row['window_ms']:.1f}",
            f"{row['global_macs'] / 1e9:.3f}",
            f"{row['window_macs'] / 1e9:.3f}",
        )
        for row in growth["rows"]
    ]
    exponents = ("exponent", f"{growth['global_exponent']:.2f}", f"{growth['window_exponent']:.2f}", "", "", "")
    side, size = options.local_side, options.window_size
    return [
        (
            f"One map of {options.channels} channels, {options.num_heads} heads, windows of {size}×{size}",
            ("pixels", "global", "windowed", "ratio", "GMACs, global", "GMACs, windowed"),
            [*rows, exponents],
        ),
        (
            f"A float32 LiteRT file on {side}×{side} pixels, {size}×{size} pixels seen by each",
            ("mechanism", "GMACs", "written", "LiteRT", "ratio to window", "TensorFlow", "partitions"),
            [
                (
                    row["mechanism"],
                    f"{row['macs'] / 1e9:.3f}",
                    f"{row['written_bytes'] / 1e6:.1f} MB",
                    f"{row['litert_ms']:.1f} ms",
                    f"{row['litert_ms'] / local[0]['litert_ms']:.2f}",
                    f"{row['tensorflow_ms']:.1f} ms",
                    str(row["partitions"]),
                )
                for row in local
            ],
        ),
        (
            "ResNet-50 at 224×224 with each mechanism",
            ("attention", "slot", "parameters", "GMACs"),
            [
                (row["attention"] or "-", row["slot"] or "-", f"{row['parameters']:,}", f"{row['macs'] / 1e9:.3f}")
                for row in in_resnet50
            ],
        ),
    ]


PAGE = """# What attention costs

Measured on {cores} CPU cores by

    python recipes/studies/attention_cost.py

which also writes [cost.json](cost.json) and the picture. Compare ratios: a machine that others use is slower by turns.

![Time of global and of windowed attention over the size of the map](cost.png)

Global attention multiplies 4 h w C² + 2 (h w)² C numbers, attention in windows of M×M pixels 4 h w C² + 2 M² h w C
(arXiv:2103.14030, equations 1 and 2): "exponent" is e of the best fit `time = c · pixels^e`. "Written" counts the
bytes of every tensor that the file's operations produce. No local mechanism builds a matrix of all pixels by all
pixels; each key is copied about ((block + k - 1) / block)² times, where cutting out every pixel's neighbourhood would
copy it k² times.

"""


def main(options: Options) -> dict:
    """Measures, prints and writes everything; returns what was measured."""
    options.output_dir.mkdir(parents=True, exist_ok=True)
    in_resnet50, growth, local = measure_in_resnet50(), measure_growth(options), measure_local(options)
    results = sheets(growth, local, in_resnet50, options)
    for sheet in results:
        Console().print(on_console(sheet))
    settings = dataclasses.asdict(options)
    del settings["output_dir"]
    result = {"options": settings, "growth": growth, "local": local, "in_resnet50": in_resnet50}
    write_text(options.output_dir / "cost.json", json.dumps(result, indent=2) + "\n")
    with atomic_path(options.output_dir / "cost.png") as partial:
        draw(growth, options).savefig(partial, format="png")
    page = PAGE.format(cores=os.cpu_count()) + "\n".join(map(in_markdown, results))
    write_text(options.output_dir / "README.md", page)
    return result


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
