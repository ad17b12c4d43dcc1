"""Shows that two checkouts compute the same: `python tests/same_results.py OLD NEW --directory FOLDER`.

Each trains, exports, evaluates and predicts with the same commands, and every file and answer is compared: LiteRT
files by their bytes, Keras files by config and weights, JSON by its values. Times, versions and places are left out.
For a change that moves code and should change no number; what differs is printed, and the exit status is 1.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

# of the process, the machine and the day, and what carries a hash of them
VOLATILE = {"latency_ms", "training_seconds", "environment", "kzoo", "path", "shared_object_id"}
COMMANDS = (
    "train quickstart --smoke --export float32 int8 int4_weights --output-dir {out}/classes",
    "train isbi_unet --smoke --dataset {data}/pairs --image-size 64 --crop-size 32 --augmentation flip elastic scale "
    "--output-dir {out}/maps",
    "export {data}/model.keras {out}/files --precision all --dataset digits --evaluate 50 --report",
    "evaluate {data}/model.keras --dataset digits",
    "evaluate {out}/files/cifar_resnet20_int8.tflite --dataset digits --resize pad",
    "predict {data}/model.keras {data}/pairs/images --json",
    "info unet --backbone resnet18_se",
)


def make_inputs(data: Path) -> None:
    """A random classifier, and pictures with masks."""
    code = "import keras, kzoo; keras.utils.set_random_seed(3); kzoo.build('cifar_resnet20').save('model.keras')"
    data.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", code], cwd=data, check=True)
    rng = np.random.default_rng(1)
    for folder in ("images", "masks"):
        (data / "pairs" / folder).mkdir(parents=True, exist_ok=True)
    for number in range(20):
        mask = rng.integers(0, 2, (9, 8)).repeat(8, 0).repeat(8, 1).astype("uint8")
        noise = rng.integers(0, 99, (*mask.shape, 3), dtype="uint8")
        Image.fromarray(noise + 120 * mask[..., None]).save(data / "pairs" / "images" / f"{number}.png")
        Image.fromarray(255 * mask).save(data / "pairs" / "masks" / f"{number}.png")


def run_all(tree: Path, data: Path, out: Path) -> list[str]:
    """The cells and numbers that each command prints."""
    answers = []
    for command in COMMANDS:
        words = command.format(data=data, out=out).split()
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from kzoo.cli import main; main(sys.argv[1:])", *words],
            env=os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "400"},
            capture_output=True,
            text=True,
        )
        print(f"{tree.name}: {command.split(' --')[0]}: exit {done.returncode}", flush=True)
        answers.append(done.stderr if done.returncode else done.stdout)
    return answers


def content(path: Path) -> object:
    """What a file says, without what differs from run to run; None for pictures, logs and pages."""
    if path.suffix == ".tflite":
        return path.read_bytes()
    if path.suffix == ".json":
        return stable(json.loads(path.read_text()))
    if path.name == "history.csv":
        with path.open(newline="") as file:
            return [row | {"seconds": ""} for row in csv.DictReader(file)]
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file, h5py.File(file) as weights:
            arrays = {}
            weights.visititems(
                lambda name, item: arrays.update({name: np.array(item)} if hasattr(item, "shape") else {})
            )
            return stable(json.loads(archive.read("config.json"))), {
                name: array.tobytes() for name, array in arrays.items()
            }
    return None


def stable(value: object) -> object:
    if isinstance(value, dict):
        return {name: stable(inside) for name, inside in value.items() if name not in VOLATILE}
    return [stable(inside) for inside in value] if isinstance(value, list) else value


def differences(old: Path, new: Path) -> Iterator[str]:
    names = [
        {path.relative_to(root) for path in root.rglob("*") if path.is_file() and "tensorboard" not in path.parts}
        for root in (old, new)
    ]
    yield from (f"{name}: in one alone" for name in sorted(names[0] ^ names[1]))
    for name in sorted(names[0] & names[1]):
        if content(old / name) != content(new / name):
            yield f"{name}: differs"


def cells(text: str) -> list[str]:
    """The words of tables however they are framed, without times."""
    words = re.sub(r"[\u2500-\u257f]", " ", text).split()
    return sorted(word for word, unit in zip(words, [*words[1:], ""], strict=True) if "ms" not in (word, unit))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--directory", type=Path, required=True, help="Folder for what is made.")
    options = parser.parse_args()
    directory = options.directory.absolute()
    make_inputs(directory / "data")
    answers = {}
    for name in ("old", "new"):
        # the same place for both, so that no path differs
        answers[name] = run_all(getattr(options, name).absolute(), directory / "data", directory / "out")
        (directory / "out").rename(directory / name)
    found = list(differences(directory / "old", directory / "new"))
    for command, *told in zip(COMMANDS, answers["old"], answers["new"], strict=True):
        if not command.startswith("train") and cells(told[0]) != cells(told[1]):  # the files tell of training
            found.append(f"{command.split(' --')[0]} prints something else:\n--- old\n{told[0]}--- new\n{told[1]}")
    compared = sum(content(path) is not None for path in (directory / "new").rglob("*") if path.is_file())
    print(*found, f"{compared} files compared, {len(found)} differences", sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
