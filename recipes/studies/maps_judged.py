"""Whether maps of two CIFAR-10 networks are any good, beside maps that know nothing, and whether CBAM helps.

    python recipes/studies/maps_judged.py [--images 30]

takes the first test images and explains the most probable class of each, for the trained networks of the recipes
cifar10_resnet20 and cifar10_resnet20_cbam. Maps with gradients are of the Keras model; occlusion, RISE,
and all judging, are of its float32 file, which gives the same numbers in less time. Writes README.md and judged.json
to saved_models/maps_judged.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from judged import CAMS, RANDOM, as_numbers, gain, in_words, maps_of, methods_of, table, tables, verdict

from kzoo.console import parse, user_errors
from kzoo.data import load_dataset
from kzoo.edge import LiteRTModel
from kzoo.explain import Estimate, judge_maps, mean_with_interval, randomisation_check, rise
from kzoo.files import ensure_writable, write_text

NETWORKS = ("cifar10_resnet20", "cifar10_resnet20_cbam")
MASKS = 200
MEASURES = {"deletion": -1, "insertion": 1, "road_most": -1, "road_least": 1, "average_drop": -1}  # 1: more is better
CHECKED = 20  # images of the randomisation check

HEAD = """# Are the maps any good?

The maps of the most probable class of the first {images} test images of CIFAR-10, judged by

    python recipes/studies/maps_judged.py --images {images}

Maps with gradients are of the Keras model; occlusion, RISE ({masks} masks) and the judging are of its float32 file.
Integrated gradients and SmoothGrad have 25 gradients for each image. The numbers are those of
`kzoo.explain.judge_maps`, with bootstrap intervals of 95 % over the images. Of deletion, ROAD with the most telling
pixels first (`road_most`) and average drop less is better, of the others more. "Random, coarse" is as coarse as
the map of Grad-CAM.

Grad-CAM and HiResCAM are the same before global average pooling. Of random pixels the holes are scattered over the
picture, which misleads a network by itself: deletion counts that as knowledge, ROAD fills the holes.
"""
CBAM = """## Are CBAM's maps better than the plain network's?

The gain over coarse random maps with CBAM, minus that without:
"""
RANDOMISED = f"""## Randomisation check

Mean rank correlation with the maps of weights in disorder, from the top layer by layer, of {CHECKED} images:
"""
FILES = f"""## The file that is deployed

Correlation of RISE's maps ({MASKS} masks) of a file with those of its Keras model, over the pixels of each image, both
of the probability of the class that the Keras model finds:
"""


@dataclass(frozen=True)
class Options:
    """What is explained, and where the numbers go."""

    images: int = 30
    """Number of test images."""
    output_dir: Path = Path("saved_models/maps_judged")
    """Directory of README.md and judged.json."""
    models: Path = Path("saved_models")
    """Directory of the trained networks."""


def alike_in_files(model: keras.Model, files: dict[str, LiteRTModel], images: np.ndarray) -> dict[str, Estimate]:
    """Correlation of RISE's maps of each file with those of its Keras model, image by image.

    All are of the probability of the class that the Keras model finds, since a file gives no logits.
    """
    classes = np.argmax(keras.ops.convert_to_numpy(model(images)), axis=-1)
    alike = {name: [] for name in files}
    for image, index in zip(images, classes, strict=True):
        own = rise(model, image[None], lambda logits, i=index: keras.ops.softmax(logits)[:, i], masks=MASKS)
        for name, file in files.items():
            other = rise(file, image[None], int(index), masks=MASKS)
            alike[name].append(np.corrcoef(own.ravel(), other.ravel())[0, 1])
    return {name: mean_with_interval(np.array(each)) for name, each in alike.items()}


def in_page(networks: dict[str, dict], alike: list[list[str]], files: list[list[str]], images: int) -> str:
    """The page, in Markdown."""
    parts = [HEAD.format(images=images, masks=MASKS)]
    for name, judged in networks.items():
        parts += [f"## {name}\n", *tables(judged, MEASURES)]
    plain, cbam = networks.values()
    rows = [
        [method, *(verdict(more(cbam, plain, method, measure)) for measure in MEASURES)]
        for method in methods_of(plain)
    ]
    cells = [cell for _, *row in rows for cell in row]
    better, worse = (sum(cell.startswith(word) for cell in cells) for word in ("**better", "**worse"))
    parts += [CBAM, table(["map", *MEASURES], rows)]
    words = "are better" if 2 * better > len(cells) else "are not shown to be better"
    parts.append(
        f"Of {len(cells)} comparisons {better} are better, {worse} worse, {len(cells) - better - worse} open. "
        f"So CBAM's maps {words}.\n"
    )
    parts += [RANDOMISED, table(["network", "map", "correlation", ""], alike)]
    return "\n".join([*parts, FILES, table(["network", "file", "correlation", "least"], files)])


def more(one: dict, other: dict, method: str, measure: str) -> Estimate:
    """By how much a method gains more over random maps with one network than with the other."""
    gains = [gain(judged, method, RANDOM, measure, MEASURES[measure]).each for judged in (one, other)]
    return mean_with_interval(gains[0] - gains[1])


def main(options: Options) -> None:
    """Judges everything and writes the page."""
    ensure_writable(options.output_dir, need_bytes=1_000_000)
    start = time.monotonic()
    images = load_dataset("cifar10").test.arrays(options.images)["image"].astype("float32")
    networks, alike, files = {}, [], []
    for name in NETWORKS:
        model = keras.saving.load_model(options.models / name / "model.keras", compile=False)
        file = LiteRTModel(options.models / name / "model_float32.tflite")
        networks[name] = {
            method: judge_maps(file, images, maps).measures
            for method, maps in maps_of(model, file, images, masks=MASKS)
        }
        for method, make in CAMS.items():
            found = randomisation_check(model, images[:CHECKED], make)
            alike.append([name, method, f"{found.correlations.mean():.2f}", "alike" if found.alike else "changes"])
        read = {each: LiteRTModel(options.models / name / f"model_{each}.tflite") for each in ("float32", "int8")}
        for precision, each in alike_in_files(model, read, images).items():
            files.append([name, precision, in_words(each), f"{each.each.min():.3f}"])
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    numbers = {name: as_numbers(judged) for name, judged in networks.items()}
    result = {
        "images": options.images,
        "seconds": time.monotonic() - start,
        "measures": numbers,
        "randomised": alike,
        "files": files,
    }
    write_text(options.output_dir / "judged.json", json.dumps(result, indent=2) + "\n")
    write_text(options.output_dir / "README.md", in_page(networks, alike, files, options.images))


if __name__ == "__main__":
    with user_errors():
        main(parse(Options, sys.argv[1:], sys.argv[0], description=__doc__))
