"""Opens damaged files as users do, and counts what should never happen: `python tests/fuzz.py --cases 20000 --seed 7`.

Every case follows from the seed, the format and its number, so that it can be made again alone (`--first N --cases
1`). Cases run in forks of a process, a few hundred in each: one that crashes or hangs is told by its number.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import numpy as np
from helpers import make_recipe, pixels, randomise
from mutations import SECRET, damage_bytes, damage_hdf5, damage_json, damage_keras
from PIL import Image

import kzoo
from kzoo import apart
from kzoo.class_names import known_output
from kzoo.data.split import ImageDataset, IndexedSplit
from kzoo.data.tables import list_rows
from kzoo.edge import LiteRTModel, read_card
from kzoo.errors import KzooError
from kzoo.images import Pixels
from kzoo.known_pixels import known_pixels
from kzoo.layers import SqueezeExcite
from kzoo.output import Output
from kzoo.predict.classifier import classify, load_keras, open_classifier
from kzoo.recipe import recipe_beside
from kzoo.train.run_directory import prepare

CHUNK = 250
LONGEST_SECONDS = 120
MOST_MB = 1000  # that one case may take of this process, libraries that load with the first of them counted in
CLASSES = ("cat", "dog", "emu")
TABLE = {"a.png": "cat", "b.png": "dog", "c.png": "dog"}
DATA = ImageDataset("scenes", CLASSES, (8, 8, 3), *[IndexedSplit({}, {})] * 3)
RECIPE = make_recipe("small", "unet", "scenes", void=(255,), class_names=CLASSES)


def small_model() -> keras.Model:
    inputs = keras.Input((8, 8, 3), name="images")
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = SqueezeExcite(name="attention")(keras.layers.ReLU(name="relu")(x))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax", name="dense")(x), name="small")


class Files:
    """The files that are damaged, the copies that are opened, and a secret that none of them may reach.

    Args:
        directory: where they are; made by the first use of it.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.originals, self.work = directory / "originals", directory / f"work_{os.getpid()}"
        self.secret = directory / "secret.bin"
        self.work.mkdir(parents=True, exist_ok=True)
        self._model = None

    def make(self) -> None:
        """Writes the originals."""
        self.originals.mkdir(exist_ok=True)
        np.full(4096, SECRET, "float32").tofile(self.secret)
        with h5py.File(self.secret.with_suffix(".h5"), "w") as file:
            file["x"] = np.full((64, 64), SECRET, "float32")
        model = randomise(small_model())
        for name in ("m.keras", "m.h5", "m.weights.h5"):
            save = model.save_weights if "weights" in name else model.save
            save(self.originals / name)
        (self.originals / "recipe.json").write_text(json.dumps(RECIPE.to_json(), indent=2))
        report = {"recipe": RECIPE.to_json(), "dataset": {"name": "scenes", "classes": CLASSES, "train": 7}}
        report |= {"output": Output.of_model(model, CLASSES).to_json(), "pixels": Pixels("stretch").to_json()}
        (self.originals / "report.json").write_text(json.dumps(report, indent=2))
        rows = "".join(f"{name},{label},{'a note on it ' * 9}\n" for name, label in TABLE.items())
        (self.originals / "labels.csv").write_text(f"path,label,note\n{rows}")
        Image.fromarray(pixels(1, 8, 8, 3)[0].astype("uint8")).save(self.originals / "image.png")

    def put_litert(self, source: Path) -> None:
        """Takes a LiteRT classifier as the file that is damaged, with a card."""
        path = self.originals / "m.tflite"
        path.write_bytes(source.read_bytes())
        output = Output.of_file(LiteRTModel(path))
        card = {"kzoo_card": 2, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        card |= {"output": output.named(output.names).to_json(), "pixels": Pixels("crop", 0.9, "bicubic").to_json()}
        Path(f"{path}.json").write_text(json.dumps(card, indent=2))

    def export(self) -> None:
        """Makes small LiteRT classifiers, of floats and of integers."""
        options = dict(precision="int8", calibration=pixels(8, 8, 8, 3))
        kzoo.export(randomise(small_model()), self.originals / "i.tflite", **options)
        kzoo.export(randomise(small_model()), self.originals / "f.tflite")
        self.put_litert(self.originals / "f.tflite")

    def model(self) -> keras.Model:
        if self._model is None:
            self._model = small_model()
        return self._model

    def damaged(self, name: str, damage: Callable, rng: np.random.Generator, *more) -> Path:
        path = self.work / name
        path.write_bytes(damage((self.originals / name).read_bytes(), rng, *more))
        return path

    def check_secret(self, model: keras.Model) -> None:
        if any(np.any(np.isclose(np.asarray(weight), SECRET)) for weight in model.weights):
            raise ForeignRead


class ForeignRead(Exception):
    """Bytes of another file came out."""


def classify_picture(files: Files, path: Path) -> None:
    ((_, found),) = classify(open_classifier(str(path)), [files.originals / "image.png"])
    if isinstance(found, Exception):
        raise found


def tflite(files: Files, rng: np.random.Generator) -> None:
    names = [path.name for path in files.originals.glob("*.tflite")]
    path = files.damaged(names[rng.integers(len(names))], damage_bytes, rng)
    path.with_name(f"{path.name}.json").unlink(missing_ok=True)
    if rng.random() < 0.5:
        classify_picture(files, path)
    else:
        lite = LiteRTModel(path)
        lite.predict(pixels(1, *lite.input_shape[1:]))
        lite.xnnpack_partitions(), lite.op_histogram(), lite.kernels(), lite.last_op(), lite.activation_bytes()


def card(files: Files, rng: np.random.Generator) -> None:
    lite = files.work / "m.tflite"
    lite.write_bytes((files.originals / "m.tflite").read_bytes())
    files.damaged("m.tflite.json", damage_json, rng)
    read_card(lite)
    classify_picture(files, lite)


def keras_file(files: Files, rng: np.random.Generator) -> None:
    path = files.damaged("m.keras", damage_keras, rng, files.secret)
    if rng.random() < 0.7:
        files.check_secret(load_keras(path))
    else:
        kzoo.load_weights(files.model(), path)
        files.check_secret(files.model())


def h5(files: Files, rng: np.random.Generator, name: str = "m.h5") -> None:
    path = files.damaged(name, damage_hdf5, rng, files.secret)
    kzoo.load_weights(files.model(), path, strict=bool(rng.integers(2)))
    files.check_secret(files.model())


def weights_h5(files: Files, rng: np.random.Generator) -> None:
    h5(files, rng, "m.weights.h5")


def recipe(files: Files, rng: np.random.Generator) -> None:
    """Goes on with a run whose recipe is damaged."""
    run = files.work / "run"
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "checkpoints" / "epoch_0001.keras").touch()
    (run / "recipe.json").write_bytes(damage_json((files.originals / "recipe.json").read_bytes(), rng))
    prepare(RECIPE, DATA, run)


def table(files: Files, rng: np.random.Generator) -> None:
    for name in TABLE:
        (files.work / name).touch()
    list_rows(files.damaged("labels.csv", damage_bytes, rng))


def report(files: Files, rng: np.random.Generator) -> None:
    model = files.damaged("report.json", damage_json, rng).with_name("m.keras")
    known_output(str(model), files.model())
    known_pixels(str(model), files.model())
    options = recipe_beside(model, "scenes")
    make_recipe("", "unet", "scenes", **options)


FORMATS = {
    ".tflite": tflite,
    "card": card,
    ".keras": keras_file,
    ".h5": h5,
    ".weights.h5": weights_h5,
    "recipe.json": recipe,
    "report.json": report,
    "labels.csv": table,
}


def run_case(kind: str, seed: int, index: int, files: Files) -> tuple[str, str]:
    """Opens one damaged file; returns the outcome, and for one that should not be what was raised."""
    rng = np.random.default_rng((seed, list(FORMATS).index(kind), index))
    try:
        FORMATS[kind](files, rng)
    except KzooError as error:
        return ("refused", "") if len(str(error).splitlines()) == 1 else ("traceback", f"lines: {error!r}")
    except ForeignRead:
        return "foreign read", ""
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {str(error)[:150]!r} in {frame.filename}:{frame.lineno}"
    return "accepted", ""


def peak_mb(who: int = resource.RUSAGE_SELF) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def run_chunk(kind: str, seed: int, indices: range, directory: Path, log: Path) -> None:
    """In a fork: runs cases; writes a line when each begins and another with its outcome."""
    with log.open("w") as file:
        files = Files(directory)
        start_mb = peak_mb()
        for index in indices:
            print(json.dumps({"begun": index}), file=file, flush=True)
            signal.alarm(LONGEST_SECONDS)
            before, start = peak_mb(), time.perf_counter()
            outcome, what = run_case(kind, seed, index, files)
            told = dict(index=index, outcome=outcome, what=what, ms=1000 * (time.perf_counter() - start))
            print(json.dumps(told | {"grew_mb": peak_mb() - before}), file=file, flush=True)
            signal.alarm(0)
        apart._OPENER.stop()
        ends = {"peak_mb": peak_mb(), "start_mb": start_mb, "apart_mb": peak_mb(resource.RUSAGE_CHILDREN)}
        print(json.dumps(ends), file=file, flush=True)
        shutil.rmtree(files.work)


def fuzz(kind: str, seed: int, first: int, cases: int, directory: Path, quiet: bool = True) -> dict:
    """Runs cases of one format in forks; returns counts, times and memory."""
    counts, told = Counter(), []
    totals = {"peak_mb": 0.0, "apart_mb": 0.0, "slowest_ms": 0.0, "grew_mb": 0.0}
    log = directory / f"log_{os.getpid()}"
    index, start = first, time.perf_counter()
    while index < first + cases:
        indices = range(index, min(index + CHUNK, first + cases))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if quiet:
                    null = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(null, 1), os.dup2(null, 2)
                run_chunk(kind, seed, indices, directory, log)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for line in lines:
            if "outcome" in line:
                counts[line["outcome"]] += 1
                totals["slowest_ms"] = max(totals["slowest_ms"], line["ms"])
                totals["grew_mb"] = max(totals["grew_mb"], line["grew_mb"])
                if line["outcome"] in ("traceback", "foreign read"):
                    told.append(f"{kind} {line['index']}: {line['outcome']} {line['what']}")
                if line["grew_mb"] > MOST_MB:
                    told.append(f"{kind} {line['index']}: took {line['grew_mb']:.0f} MB")
            for name in ("peak_mb", "apart_mb"):
                totals[name] = max(totals[name], line.get(name, 0))
        if status:
            index = max(line["begun"] for line in lines if "begun" in line)
            counts["crash"] += 1
            told.append(f"{kind} {index}: ended with status {status}")
        index = index + 1 if status else indices.stop
    return {"kind": kind, "cases": cases, "seconds": time.perf_counter() - start, "told": told, **counts, **totals}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", default=list(FORMATS), help=", ".join(FORMATS))
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--directory", type=Path, help="Where the small files are kept.")
    parser.add_argument("--loud", action="store_true", help="Show what libraries print.")
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp())
    if not (directory / "originals" / "image.png").exists():
        child = os.fork()  # TensorFlow must not have run in the process that forks
        if child == 0:
            try:
                directory.mkdir(exist_ok=True, parents=True)
                files = Files(directory)
                files.make()
                files.export()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(0)
        os.waitpid(child, 0)
    print("format | cases | refused | accepted | crashes | tracebacks | foreign reads | peak, growth, apart MB | s")
    for kind in options.formats:
        row = fuzz(kind, options.seed, options.first, options.cases, directory, not options.loud)
        outcomes = ("refused", "accepted", "crash", "traceback", "foreign read")
        cells = [kind, row["cases"], *(row.get(name, 0) for name in outcomes)]
        cells += [f"{row[name]:.0f}" for name in ("peak_mb", "grew_mb", "apart_mb", "seconds")]
        print(" | ".join(map(str, cells)), flush=True)
        for line in row["told"]:
            print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
