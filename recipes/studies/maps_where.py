"""Whether maps point at what they are of: classes of CamVid's road scenes, and kinds of blood cells of BCCD.

    python recipes/studies/maps_where.py camvid [--images 12] [--steps 10]
    python recipes/studies/maps_where.py bccd [--images 30]

`camvid` explains one class of each test image with the trained network of the recipe camvid_fpn. `bccd` cuts crops
with surroundings out of BCCD's pictures, trains a small classifier of them (three minutes on two CPU cores that much
other work shared; a run that is there is taken), and explains test crops. Datasets are the folders `camvid` and `bccd`
in TFDS_DATA_DIR or ~/tensorflow_datasets. Each writes its JSON to saved_models/maps_where, and README.md anew from
what is there.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from cells_in_view import KINDS, classifier, crops
from judged import as_numbers, maps_of, tables
from tyro.conf import Positional

import kzoo
from kzoo.console import parse, user_errors
from kzoo.data.pairs import load_pairs
from kzoo.edge import LiteRTModel
from kzoo.errors import DatasetError
from kzoo.explain import Estimate, Region, mean_with_interval
from kzoo.explain.judging import energy_inside
from kzoo.explain.perturbation import enlarged
from kzoo.files import ensure_writable, write_text

MEASURES = {"energy": 1, "pointing": 1}
VOID = 11
SQUARE = 22  # an eighth of the height of CamVid's pictures, which occlusion hides, side by side
CORNER = 12  # pixels of a side
COVERED = (0.01, 0.2)  # of the known pixels of an image, by the class that is explained

HEAD = """# Do maps point at what they are of?

`energy` is the share of a map's positive values that lies inside, `pointing` whether its largest value does, as in
`kzoo.explain.judge_maps`; intervals of 95 % over the images, of which each has one class. "Random, coarse" is as
coarse as the map of Grad-CAM, "Gaussian" a bell in the middle. Occlusion and RISE explain the float32 file.
"""
TEXTS = {
    "camvid": """## CamVid

    python recipes/studies/maps_where.py camvid --images {images} --steps {steps}

The network of `camvid_fpn` on {images} test images. In each one class is explained, drawn among those that cover 1 %
to 20 % of the pixels and that the network finds somewhere; inside are the pixels that people gave this class,
{share:.1%} of an image on average, and void pixels are left out. The target is the mean logit of the class
over the whole picture (of the file: its mean probability), so that no method is told where to look. Grad-CAM and
HiResCAM are the same: the last map is read place by place, and each place counts alike. RISE has {masks} masks,
{gradients}
""",
    "bccd": """## BCCD

    python recipes/studies/maps_where.py bccd --images {images} --steps {steps}

A `cifar_resnet20` that tells whether a crop of 288×288 pixels, in 48×48, shows a white cell (WBC), or else platelets,
or else red cells alone; {accuracy:.1%} of {test} test crops are right. Explained are {images} test crops of white
cells and platelets that it gets right; inside are the boxes of that kind, {share:.1%} of a crop on average, which lie
anywhere in it. Boxes without an area, of which BCCD has two, are skipped. RISE has {masks} masks, {gradients}

RISE hides with black, "RISE, grey" with the mean of the picture. To this network black is a stained nucleus: a black
corner of {corner}×{corner} pixels raises the mean probability of WBC, of crops without one, from {whole:.2f} to
{black:.2f}; a grey one gives {grey:.2f}.
""",
}


@dataclass(frozen=True)
class Options:
    """What is explained, and where the numbers go."""

    dataset: Positional[Literal["camvid", "bccd"]]
    """Pictures."""
    images: int | None = None
    """Number of pictures; 12 of CamVid, 30 of BCCD."""
    steps: int = 25
    """Gradients of integrated gradients and SmoothGrad for each picture; 0 leaves both out."""
    output_dir: Path = Path("saved_models/maps_where")
    """Directory of README.md and the JSON files."""
    models: Path = Path("saved_models")
    """Directory of the trained networks."""
    runs: Path = Path("runs")
    """Directory of the crops and of the classifier."""


def found_inside(maps: np.ndarray, inside: np.ndarray, known: np.ndarray) -> dict[str, Estimate]:
    """Energy and pointing of maps, over the pixels that are known.

    Args:
        maps: (n, height, width), enlarged bilinearly.
        inside: booleans of the pictures' size, what a map should point at.
        known: booleans, which pixels count.
    """
    energy, pointing = [], []
    for values, place, counted in zip(maps, inside, known, strict=True):
        large = enlarged(values, place.shape)[counted]
        energy.append(energy_inside(large, place[counted]))
        pointing.append(place[counted][large.argmax()])
    return {"energy": mean_with_interval(np.array(energy)), "pointing": mean_with_interval(np.array(pointing))}


def judged_where(explained: Iterator[tuple[str, np.ndarray]], inside, known) -> tuple[dict, dict[str, float]]:
    """Each method's measures, and the seconds that its maps took."""
    judged, seconds, start = {}, {}, time.monotonic()
    for name, maps in explained:
        seconds[name] = time.monotonic() - start
        judged[name] = found_inside(maps, inside, known)
        print(f"{name}: {seconds[name]:.0f} s", flush=True)
        start = time.monotonic()
    return judged, seconds


def in_camvid(options: Options, count: int) -> dict:
    """One class of each image, with CamVid's network."""
    masks, steps, rng = 100, options.steps, np.random.default_rng(0)
    model = keras.saving.load_model(options.models / "camvid_fpn" / "model.keras", compile=False)
    test = load_pairs("camvid", void=(VOID,)).test.arrays()
    images, classes, inside, known = [], [], [], []
    for index in rng.permutation(len(test["image"])):
        image, truth = test["image"][index].astype("float32"), test["mask"][index]
        counted = truth != VOID
        shares = np.bincount(truth[counted], minlength=VOID) / counted.sum()
        seen = np.unique(np.argmax(keras.ops.convert_to_numpy(model(image[None]))[0], axis=-1))
        fit = [each for each in seen if COVERED[0] <= shares[each] <= COVERED[1]]
        if fit:
            classes.append(int(rng.choice(fit)))
            images.append(image)
            inside.append(truth == classes[-1])
            known.append(counted)
        if len(images) == count:
            break
    everywhere = np.ones(inside[0].shape, bool)
    with tempfile.TemporaryDirectory() as folder:
        kzoo.export(model, Path(folder) / "model.tflite")
        file = LiteRTModel(Path(folder) / "model.tflite")
        each = [
            maps_of(model, file, image[None], Region(index, everywhere), masks, steps, stride=SQUARE, seed=number)
            for number, (image, index) in enumerate(zip(images, classes, strict=True))
        ]
        # one method after the other, each for all images
        together = ((row[0][0], np.concatenate([maps for _, maps in row])) for row in zip(*each, strict=True))
        judged, seconds = judged_where(together, inside, known)
    share = float(np.mean([place[counted].mean() for place, counted in zip(inside, known, strict=True)]))
    facts = dict(images=len(images), masks=masks, steps=steps, share=share, classes=classes)
    return facts | dict(seconds=seconds, judged=judged)


def in_bccd(options: Options, count: int) -> dict:
    """The kind of each crop, with a classifier that is trained here."""
    masks, steps = 200, options.steps
    root = find_bccd()
    run, accuracy = classifier(root, options.runs, options.models)
    model = keras.saving.load_model(run / "model.keras", compile=False)
    file = LiteRTModel(run / "model_float32.tflite")
    test = list(crops(root, "test"))
    images = np.stack([crop.pixels for crop in test]).astype("float32")
    labels = np.array([crop.kind for crop in test])
    answers = file.predict(images).argmax(axis=-1)
    fit = np.flatnonzero((answers == labels) & (labels != KINDS.index("RBC")))
    chosen = np.sort(np.random.default_rng(0).permutation(fit)[:count])
    inside = np.stack([test[index].inside for index in chosen])
    explained = maps_of(model, file, images[chosen], labels[chosen], masks=masks, steps=steps)
    judged, seconds = judged_where(explained, inside, np.ones(inside.shape, bool))
    facts = dict(images=len(chosen), masks=masks, steps=steps, share=float(inside.mean()), accuracy=accuracy)
    facts |= white_cells_by_corner(file, images[labels != KINDS.index("WBC")])
    return facts | dict(test=len(test), seconds=seconds, judged=judged)


def white_cells_by_corner(file: LiteRTModel, images: np.ndarray) -> dict[str, float]:
    """Mean probability of a white cell: as the crops are, and with one corner black or grey."""
    found = {"corner": CORNER}
    for name, share in (("whole", None), ("black", 0), ("grey", 1)):
        changed = images.copy()
        if share is not None:
            changed[:, :CORNER, :CORNER] = share * images.mean(axis=(1, 2, 3), keepdims=True)
        found[name] = float(file.predict(changed)[:, KINDS.index("WBC")].mean())
    return found


def find_bccd() -> Path:
    """The folder `bccd` where datasets are."""
    root = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser() / "bccd"
    if not (root / "Annotations").is_dir():
        raise DatasetError(f"{root} is no BCCD: it must have Annotations, ImageSets and JPEGImages")
    return root


def main(options: Options) -> None:
    """Judges one dataset and writes the page."""
    ensure_writable(options.output_dir, need_bytes=1_000_000)
    make, count = {"camvid": (in_camvid, 12), "bccd": (in_bccd, 30)}[options.dataset]
    found = make(options, options.images or count)
    found["gradients"] = "integrated gradients and SmoothGrad {steps} gradients.".format(**found)
    if not options.steps:
        found["gradients"] = "integrated gradients and SmoothGrad were left out."
    found["page"] = "\n".join([TEXTS[options.dataset].format(**found), *tables(found["judged"], MEASURES)])
    found["judged"] = as_numbers(found["judged"])
    write_text(options.output_dir / f"{options.dataset}.json", json.dumps(found, indent=2) + "\n")
    parts = [json.loads(path.read_text())["page"] for path in sorted(options.output_dir.glob("*.json"))]
    write_text(options.output_dir / "README.md", "\n".join([HEAD, *parts]))


if __name__ == "__main__":
    with user_errors():
        main(parse(Options, sys.argv[1:], sys.argv[0], description=__doc__))
