"""Whether maps of two CIFAR-10 networks are any good, beside maps that know nothing, and whether CBAM helps.

    python recipes/studies/maps_judged.py [--images 30]

takes the first test images and explains the most probable class of each, for the trained networks of the recipes
cifar10_resnet20 and cifar10_resnet20_cbam. Maps with gradients are of the Keras model; RISE, and all judging, are of
its float32 file, which gives the same numbers in less time. Writes README.md and judged.json to
saved_models/maps_judged; 30 images took nine minutes on two busy CPU cores.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from kzoo.console import parse, user_errors
from kzoo.data import load_dataset
from kzoo.edge import LiteRTModel
from kzoo.explain import (
    Estimate,
    gaussian_maps,
    grad_cam,
    hires_cam,
    judge_maps,
    layer_cam,
    mean_with_interval,
    random_maps,
    randomisation_check,
    rise,
)
from kzoo.files import ensure_writable, write_text

NETWORKS = ("cifar10_resnet20", "cifar10_resnet20_cbam")
MASKS = 200
COARSE = 8  # side of the map that is explained
CAMS: dict[str, Callable] = {"Grad-CAM": grad_cam, "HiResCAM": hires_cam, "LayerCAM": layer_cam}
RISE = f"RISE, {MASKS} masks"
EXPLAIN = (*CAMS, RISE)
KNOW_NOTHING = ("random, 8×8", "Gaussian")
MEASURES = {"deletion": -1, "insertion": 1, "road_most": -1, "road_least": 1, "average_drop": -1}  # 1: more is better
CHECKED = 20  # images of the randomisation check

HEAD = """# Are the maps any good?

The maps of the most probable class of the first {images} test images of CIFAR-10, judged by

    python recipes/studies/maps_judged.py --images {images}

Maps with gradients are of the Keras model; RISE and the judging are of its float32 file. The numbers are those of
`kzoo.explain.judge_maps`, with bootstrap intervals of 95 % over the images. Of deletion, ROAD with the most telling
pixels first (`road_most`) and average drop less is better, of the others more. "Random, 8×8" is as coarse as the map
of Grad-CAM.

Grad-CAM and HiResCAM are the same before global average pooling. Of random pixels the holes are scattered over the
picture, which misleads a network by itself: deletion counts that as knowledge, ROAD fills the holes.
"""
BETTER = "Better than maps that know nothing, image by image (positive is better; open: the interval holds 0):\n"
CBAM = """## Are CBAM's maps better than the plain network's?

The gain over random maps of 8×8 with CBAM, minus that without:
"""
RANDOMISED = f"""## Randomisation check

Mean rank correlation with the maps of weights in disorder, from the top layer by layer, of {CHECKED} images:
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


def maps_of(model: keras.Model, file: LiteRTModel, images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Each method, and its maps."""
    for name, method in CAMS.items():
        yield name, method(model, images)
    yield RISE, rise(file, images, masks=MASKS)
    yield KNOW_NOTHING[0], random_maps((len(images), COARSE, COARSE))
    yield "random, pixels", random_maps(images.shape[:3])
    yield KNOW_NOTHING[1], gaussian_maps(images.shape[:3])


def in_words(found: Estimate) -> str:
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def table(columns: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)) + "\n"


def gain(judged: dict, method: str, other: str, measure: str) -> Estimate:
    """How much better a method is than another, image by image; positive is better."""
    return mean_with_interval(MEASURES[measure] * (judged[method][measure].each - judged[other][measure].each))


def verdict(found: Estimate) -> str:
    sure = "**better**" if found.low > 0 else "**worse**" if found.high < 0 else "open"
    return f"{sure} {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def in_page(networks: dict[str, dict], alike: list[list[str]], images: int) -> str:
    """The page, in Markdown."""
    parts = [HEAD.format(images=images)]
    for name, judged in networks.items():
        rows = [[method, *(in_words(found[key]) for key in MEASURES)] for method, found in judged.items()]
        parts += [f"## {name}\n", table(["map", *MEASURES], rows), BETTER]
        for other in KNOW_NOTHING:
            rows = [[method, *(verdict(gain(judged, method, other, key)) for key in MEASURES)] for method in EXPLAIN]
            parts.append(table([f"against {other}", *MEASURES], rows))
    plain, cbam = networks.values()
    rows = [[method, *(verdict(more(cbam, plain, method, measure)) for measure in MEASURES)] for method in EXPLAIN]
    cells = [cell for _, *row in rows for cell in row]
    better, worse = (sum(cell.startswith(word) for cell in cells) for word in ("**better", "**worse"))
    parts += [CBAM, table(["map", *MEASURES], rows)]
    parts.append(
        f"Of {len(cells)} comparisons {better} are better, {worse} worse, {len(cells) - better - worse} open.\n"
    )
    return "\n".join([*parts, RANDOMISED, table(["network", "map", "correlation", ""], alike)])


def more(one: dict, other: dict, method: str, measure: str) -> Estimate:
    """By how much a method gains more over random maps with one network than with the other."""
    gains = [gain(judged, method, KNOW_NOTHING[0], measure).each for judged in (one, other)]
    return mean_with_interval(gains[0] - gains[1])


def main(options: Options) -> None:
    """Judges everything and writes the page."""
    ensure_writable(options.output_dir, need_bytes=1_000_000)
    start = time.monotonic()
    images = load_dataset("cifar10").test.arrays(options.images)["image"].astype("float32")
    networks, alike = {}, []
    for name in NETWORKS:
        model = keras.saving.load_model(options.models / name / "model.keras", compile=False)
        file = LiteRTModel(options.models / name / "model_float32.tflite")
        networks[name] = {
            method: judge_maps(file, images, maps).measures for method, maps in maps_of(model, file, images)
        }
        for method, make in CAMS.items():
            found = randomisation_check(model, images[:CHECKED], make)
            alike.append([name, method, f"{found.correlations.mean():.2f}", "alike" if found.alike else "changes"])
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    numbers = {
        name: {method: {key: [*each[1:]] for key, each in found.items()} for method, found in judged.items()}
        for name, judged in networks.items()
    }
    result = {"images": options.images, "seconds": time.monotonic() - start, "measures": numbers, "randomised": alike}
    write_text(options.output_dir / "judged.json", json.dumps(result, indent=2) + "\n")
    write_text(options.output_dir / "README.md", in_page(networks, alike, options.images))


if __name__ == "__main__":
    with user_errors():
        main(parse(Options, sys.argv[1:], sys.argv[0], description=__doc__))
