"""One model of each family at full size: its float32 LiteRT file, and how long it takes to build.

    python recipes/studies/full_size.py

builds, folds and exports each model with random weights, prints two tables, and writes them as a page and as JSON to
saved_models/full_size.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from sheets import Sheet, in_markdown, interleaved_ms, on_console

import kzoo
from kzoo.edge import LiteRTModel
from kzoo.files import write_text
from kzoo.registry import lookup

MODELS = (
    "simple_cnn",
    "vgg16",
    "vgg16_bn",
    "googlenet",
    "googlenet_bn",
    "inception_v3",
    "resnet50",
    "resnet50_v1",
    "resnet50_v2",
    "resnet50_se",
    "resnet50_cbam",
    "resnet50_nl",
    "resnet50_sasa",
    "cifar_resnet20",
    "residual_attention56",
    "swin_tiny",
    "nat_mini",
)
PEERS = {
    "resnet50_v1": keras.applications.ResNet50,
    "resnet50_v2": keras.applications.ResNet50V2,
    "vgg16": keras.applications.VGG16,
    "inception_v3_keras": keras.applications.InceptionV3,
}
SIDE = 1024  # of the matrices whose product says what the machine can do


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured."""

    models: tuple[str, ...] = MODELS
    """Names of the zoo."""
    repeats: int = 15
    """Runs of which the fastest counts."""
    builds: int = 5
    """Builds of which the median is taken."""
    output_dir: Path = Path("saved_models/full_size")
    """Where the tables go."""


def measure_file(name: str, repeats: int) -> dict:
    """Size, partitions, error and latency of a model's file, and the time that a matrix product of its size takes."""
    model = kzoo.build(name, classifier_activation=None)
    images = np.random.default_rng(0).integers(0, 256, (4, *model.input.shape[1:])).astype("float32")
    normalise(model, images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        report = kzoo.export(kzoo.fold_batch_norm(model), path, calibration=images)
        lite = LiteRTModel(path)
    a, b = np.random.default_rng(0).normal(size=(2, SIDE, SIDE)).astype("float32")
    times = interleaved_ms({"file": lambda: lite.predict(images[:1]), "product": lambda: a @ b}, repeats, min)
    macs = kzoo.describe(name).macs
    return {
        "model": name,
        "family": lookup(name).family,
        "parameters": int(model.count_params()),
        "macs": macs,
        "size_bytes": report.size_bytes,
        "ops": sum(report.ops.values()),
        "xnnpack_partitions": report.xnnpack_partitions,
        "max_rel_error": report.max_rel_error,
        "latency_ms": times["file"],
        "ceiling_ms": times["product"] * macs / SIDE**3,
    }


def normalise(model: keras.Model, images: np.ndarray) -> None:
    """Gives every batch normalisation the statistics of these images, for want of trained ones.

    Without them activations grow from block to block, and the softmax of dot products turns into a maximum, which
    rounding decides.
    """
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def measure_builds(repeats: int) -> list[dict]:
    """Median build times of the zoo's models and of their peers in keras.applications, by turns."""
    rows = []
    for name, peer in track(PEERS.items(), "builds"):
        times = {"zoo": [], "peer": []}
        for repeat in range(-1, repeats):
            for key, build in (
                ("zoo", lambda name=name: kzoo.build(name)),
                ("peer", lambda peer=peer: peer(weights=None)),
            ):
                keras.backend.clear_session()
                start = time.perf_counter()
                build()
                if repeat >= 0:
                    times[key].append(time.perf_counter() - start)
        rows.append({"model": name} | {f"{key}_s": statistics.median(each) for key, each in times.items()})
    return rows


def sheets(files: list[dict], builds: list[dict]) -> list[Sheet]:
    """The results as text."""
    return [
        (
            f"Float32 files, {os.cpu_count()} threads",
            ("model", "GMACs", "file", "ops", "XNNPACK partitions", "largest error", "latency", "× the ceiling"),
            [
                (
                    row["model"],
                    f"{row['macs'] / 1e9:.3f}",
                    f"{row['size_bytes'] / 1e6:.1f} MB",
                    str(row["ops"]),
                    str(row["xnnpack_partitions"]),
                    f"{row['max_rel_error']:.1e}",
                    f"{row['latency_ms']:.1f} ms",
                    f"{row['latency_ms'] / row['ceiling_ms']:.2f}",
                )
                for row in files
            ],
        ),
        (
            "Builds with random weights",
            ("model", "kzoo", "keras.applications", "ratio"),
            [
                (
                    row["model"],
                    f"{row['zoo_s']:.2f} s",
                    f"{row['peer_s']:.2f} s",
                    f"{row['zoo_s'] / row['peer_s']:.2f}",
                )
                for row in builds
            ],
        ),
    ]


PAGE = """# The families at full size

Measured by

    python recipes/studies/full_size.py

which also writes [full_size.json](full_size.json). The ceiling is the time that the model's multiply-adds would take
at the speed of a {side}×{side} float32 matrix product in NumPy, measured by turns with the file; of both the fastest
of {repeats} runs counts, as others use the machine too. "Largest error" is that of the file against Keras, relative
to the largest output.

"""


def main(options: Options) -> dict:
    """Measures, prints and writes everything; returns what was measured."""
    options.output_dir.mkdir(parents=True, exist_ok=True)
    builds = measure_builds(options.builds)
    files = [measure_file(name, options.repeats) for name in track(options.models, "files")]
    results = sheets(files, builds)
    for sheet in results:
        Console().print(on_console(sheet))
    result = {"files": files, "builds": builds}
    write_text(options.output_dir / "full_size.json", json.dumps(result, indent=2) + "\n")
    write_text(
        options.output_dir / "README.md",
        PAGE.format(side=SIDE, repeats=options.repeats) + "\n".join(map(in_markdown, results)),
    )
    return result


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
