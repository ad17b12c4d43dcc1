"""Crops of BCCD's pictures (https://github.com/Shenggan/BCCD_Dataset) with surroundings, and a classifier of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as xml

import numpy as np
from PIL import Image

from kzoo.train import Augment, Data, Optimizer, Recipe, Schedule, train

KINDS = ("Platelets", "RBC", "WBC")  # in the order of a folder's classes
SIDE, SMALL = 288, 48  # pixels of a crop in the picture, and as the network sees it
SPLITS = {"train": "train", "val": "validation", "test": "test"}


class Crop(NamedTuple):
    """A crop, the rarest kind of cell in it, and where the boxes of this kind are."""

    name: str
    pixels: np.ndarray
    kind: int
    inside: np.ndarray


def boxes_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Kinds (n,) and boxes (n, 4) of left, top, right and bottom; those without an area are skipped."""
    kinds, boxes = [], []
    for cell in xml.parse(path).iter("object"):
        box = [int(float(cell.find(f"bndbox/{side}").text)) for side in ("xmin", "ymin", "xmax", "ymax")]
        if box[2] > box[0] and box[3] > box[1]:
            kinds.append(KINDS.index(cell.find("name").text))
            boxes.append(box)
    return np.array(kinds, int), np.array(boxes, int).reshape(-1, 4)


def crops(root: Path, split: str) -> Iterator[Crop]:
    """A crop for each white cell and platelet of a split, which lies anywhere in it, and two more for each picture.

    The kind is WBC where the middle of a white cell's box is in sight, or else Platelets, or else RBC.
    """
    rng = np.random.default_rng(list(SPLITS).index(split))
    for stem in (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
        kinds, boxes = boxes_of(root / "Annotations" / f"{stem}.xml")
        picture = Image.open(root / "JPEGImages" / f"{stem}.jpg").convert("RGB")
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        corners = [middle - rng.uniform(0.1, 0.9, 2) * SIDE for middle in middles[kinds != KINDS.index("RBC")]]
        corners += [rng.uniform(0, np.array(picture.size) - SIDE) for _ in range(2)]
        for number, corner in enumerate(corners):
            left, top = np.clip(corner, 0, np.array(picture.size) - SIDE).astype(int)
            seen = ((middles >= (left, top)) & (middles < (left + SIDE, top + SIDE))).all(axis=1)
            if not seen.any():
                continue
            kind = next(KINDS.index(each) for each in ("WBC", "Platelets", "RBC") if KINDS.index(each) in kinds[seen])
            small = picture.crop((left, top, left + SIDE, top + SIDE)).resize((SMALL, SMALL), Image.Resampling.BOX)
            inside = np.zeros((SMALL, SMALL), bool)
            for x1, y1, x2, y2 in (boxes[kinds == kind] - (left, top, left, top)) * SMALL / SIDE:
                inside[max(0, round(y1)) : max(0, round(y2)), max(0, round(x1)) : max(0, round(x2))] = True
            yield Crop(f"{stem}_{number}", np.asarray(small), kind, inside)


def classifier(root: Path, runs: Path, models: Path) -> tuple[Path, float]:
    """The directory of a classifier of the crops' kinds, trained where there is none, and its accuracy in the test."""
    folder = runs / "cells_in_view_pictures"
    for split, name in SPLITS.items():
        for crop in crops(root, split):
            place = folder / name / KINDS[crop.kind] / f"{crop.name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(crop.pixels).save(place)
    recipe = Recipe(
        name="cells_in_view",
        model="cifar_resnet20",
        weights=str(models / "cifar10_resnet20" / "model.keras"),
        data=Data(str(folder), image_size=SMALL),
        augment=Augment(("flip", "flip_vertical")),
        optimizer=Optimizer("adamw", learning_rate=1e-3, weight_decay=1e-2),
        schedule=Schedule(epochs=6, batch_size=32, warmup_epochs=1),
        output_dir=str(runs / "cells_in_view"),
        export=("float32",),
    )
    return recipe.run_dir, train(recipe)["models"]["keras"]["accuracy"]
