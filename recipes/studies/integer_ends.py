"""The int8 files of saved_models with int8, uint8 and float32 as input and output: accuracy, partitions, latency.

    python recipes/studies/integer_ends.py [--node FOLDER]

judges each on the test images of its run (`kzoo evaluate`; the datasets in TFDS_DATA_DIR), and with --node runs the
float32 and uint8 ones under LiteRT.js on ten of them, beside `kzoo predict`: FOLDER holds what `npm install` makes of
recipes/samples/javascript/package.json.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from saved_cards import SCORES, model_of
from sheets import Sheet, in_markdown, interleaved_ms, on_console

from kzoo.edge import LiteRTModel, read_card, with_io
from kzoo.edge.card import card_path, describe, write_card
from kzoo.edge.interface import IO
from kzoo.files import write_text
from kzoo.page import SCRIPT
from kzoo.predict.classifier import as_classifier, open_model
from kzoo.predict.segmenter import as_segmenter, class_areas
from kzoo.recipe import OPTIONS, Data
from kzoo.registry import SEGMENTATION
from kzoo.tasks import task_of_output

RUNS = ("cifar10_resnet20", "cifar10_resnet20_cbam", "fashion_mnist_resnet20", "camvid_fpn", "isbi_unet")
PICTURES = 10


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the study."""

    runs: tuple[str, ...] = RUNS
    """Folders of saved_models."""
    node: Path | None = None
    """Folder with node_modules."""
    folder: Path = Path("saved_models")
    """Folder of the runs."""
    output_dir: Path = Path("saved_models/integer_ends")
    """Folder for the table."""


def main(options: Options) -> list[dict]:
    """Measures, prints and writes."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.runs:
            rows += measure(options.folder / name, Path(scratch, name), options.node)
            Console().print(on_console(sheet(rows)))
    options.output_dir.mkdir(parents=True, exist_ok=True)
    write_text(options.output_dir / "integer_ends.json", json.dumps(rows, indent=2) + "\n")
    page = "# What integer files take and give\n\n" + "\n".join(__doc__.splitlines()[2:]) + "\n\n"
    write_text(options.output_dir / "README.md", page + in_markdown(sheet(rows)))
    return rows


def measure(run: Path, scratch: Path, node: Path | None) -> list[dict]:
    """A row for each type of one run's file."""
    scratch.mkdir()
    told = json.loads((run / "report.json").read_text())
    shutil.copy(run / "report.json", scratch)  # `kzoo evaluate` finds there what was held out
    int8 = run / "model_int8.tflite"
    content, card, model = int8.read_bytes(), read_card(int8), model_of(run, told, LiteRTModel(int8))
    rows, files = [], {}
    for io in IO:
        path = scratch / f"model_int8_{io}.tflite"
        changed, card_told = describe(with_io(content, io), card, model, "int8", {}, 0)
        path.write_bytes(changed)
        write_card(card_told, changed, card_path(path))
        files[io] = path
        scores = answer_of("evaluate", path, "--dataset", told["dataset"]["name"])["scores"]
        metric = next(iter(SCORES[card.output.task == SEGMENTATION]))
        lite = LiteRTModel(path)
        rows.append(
            {
                "run": run.name,
                "io": io,
                "metric": metric,
                "value": scores[metric],
                "partitions": lite.xnnpack_partitions(),
                "outside": lite.ops_outside_xnnpack(),
            }
        )
    lites = {io: LiteRTModel(path) for io, path in files.items()}
    images = np.random.default_rng(0).integers(0, 256, (1, *lites["int8"].input_shape[1:]))
    times = interleaved_ms({io: lambda lite=lite: lite.predict(images) for io, lite in lites.items()}, 50)
    for row in rows:
        row["latency_ms"] = times[row["io"]]
        if node and row["io"] != "int8":
            row["litert_js"] = in_node(files[row["io"]], told, scratch, node)
    return rows


def in_node(path: Path, told: dict, scratch: Path, node: Path) -> float:
    """Largest difference between LiteRT.js and Python, in probabilities or shares of the area."""
    opened = open_model(str(path))
    task = task_of_output(opened.output, str(path))
    data = Data(told["dataset"]["name"], image_size=opened.input_shape[:2], test_fraction=0.2)
    kind = OPTIONS[task.name]
    options = kind(
        **{
            field.name: told["recipe"][field.name]
            for field in dataclasses.fields(kind)
            if field.name in told["recipe"]
        }
    )
    images = task.load(data, options, 0).test.arrays(PICTURES)["image"].astype("uint8")
    pictures = [scratch / f"{index}.png" for index in range(PICTURES)]
    for picture, image in zip(pictures, images, strict=False):
        Image.fromarray(image).save(picture)
    sample = scratch / "javascript"
    if not sample.exists():
        shutil.copytree("recipes/samples/javascript", sample)
        shutil.copy(SCRIPT, sample)
        (sample / "node_modules").symlink_to((node / "node_modules").resolve(), target_is_directory=True)
    command = ["node", "predict.js", path, *pictures[: len(images)]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=sample)
    largest = 0.0
    for line, image in zip(done.stdout.splitlines(), images, strict=True):
        theirs = json.loads(line)["answer"]
        if task.name == SEGMENTATION:
            mask = as_segmenter(opened).segment(Image.fromarray(image))
            ours = {each["class"]: each["share"] for each in class_areas(mask, opened.class_names)}
        else:
            ours = dict(zip(opened.class_names, as_classifier(opened).predict(image[None])[0], strict=True))
        differences = (abs(ours[each["name"]] - each.get("probability", each.get("share"))) for each in theirs)
        largest = max(largest, float(max(differences)))
    return largest


def answer_of(*arguments) -> dict:
    """What a command of kzoo prints as JSON."""
    command = [sys.executable, "-m", "kzoo", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def sheet(rows: list[dict]) -> Sheet:
    """A line for each file."""
    ends = ("XNNPACK partitions", "outside", "latency, ms", "LiteRT.js: largest difference")
    columns = ("model", "input and output", "metric", "value", *ends)
    lines = [
        (
            row["run"],
            row["io"],
            row["metric"],
            f"{row['value']:.4f}",
            str(row["partitions"]),
            ", ".join(f"{count} {op}" for op, count in row["outside"].items()) or "none",
            f"{row['latency_ms']:.2f}",
            f"{row['litert_js']:.1e}" if "litert_js" in row else "-",
        )
        for row in rows
    ]
    return "Files", columns, lines


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
