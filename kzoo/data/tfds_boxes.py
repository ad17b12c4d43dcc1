"""TFDS sets whose pictures have boxes, each with a class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kzoo.data.annotations import Annotated, annotated, usable_boxes
from kzoo.data.box_examples import box_arrays, chosen_classes, example_specs
from kzoo.data.split import Example, ImageDataset, StreamedSplit
from kzoo.data.tfds_sets import image_shape, prepared_builder, tfds_splits, undecoded
from kzoo.errors import DatasetError
from kzoo.images import Pixels, read_picture, read_size

LOOKED_AT = 100  # pictures of a split, to see whether it has boxes
CROWDS = ("is_crowd", "is_difficult")  # as TFDS calls them in COCO and in VOC


def load_tfds_boxes(
    name: str,
    data_dir: str | None,
    image_size: tuple[int, int] | None,
    pixels: Pixels,
    validation_fraction: float,
    class_names: Sequence[str],
) -> ImageDataset:
    """A set with an image and a sequence of objects, each with a `bbox` and a label; see `load_boxes`.

    All boxes, and the headers of all pictures, are read once before this returns.

    Raises:
        DatasetError: unknown, absent, no such set, or a split without boxes.
    """
    builder = prepared_builder(name, data_dir)
    feature, label, names = _objects(name, builder.info.features)
    shape = image_shape(builder, image_size, "480 640")
    place = f"an image of {name}"

    def read(element: Mapping[str, Any]) -> tuple[Annotated, tuple[int, int]]:
        boxes = np.asarray(element["bbox"], "float64").reshape(-1, 4)[:, [1, 0, 3, 2]]  # TFDS begins with the top
        rows = zip(boxes.tolist(), np.asarray(element["label"]), np.asarray(element["crowd"]), strict=True)
        found = [(box, names[number], bool(crowd)) for box, number, crowd in rows]
        return annotated(place, found, place, relative=True), read_size(element["image"], place)

    splits = tfds_splits(builder, validation_fraction, _without_boxes(builder, feature))
    sources = {split: _flat(undecoded(builder, split, image="image", objects=feature), label) for split in splits}
    usable: list[Annotated] = []
    for split, source in sources.items():
        pictures, sizes = zip(*map(read, source.as_numpy_iterator()), strict=True)
        kept = usable_boxes(f"{name}, {split}", pictures, sizes)
        if not any(picture.names for picture in kept):
            raise DatasetError(f"{name}: no picture of {split} has a box; each split needs some")
        usable += kept
    classes = chosen_classes(name, names, usable, class_names)
    most = max(len(picture.names) for picture in usable)

    def decode(**element: Any) -> Example:
        picture, size = read(element)
        [kept] = usable_boxes(name, [picture], [size], quietly=True)
        arrays = box_arrays([kept], [size], classes, shape[:2], pixels, most)
        image = pixels.apply(read_picture(element["image"], 3, place), shape)
        return {"image": image, **{key: array[0] for key, array in arrays.items()}}

    specs = example_specs(shape[:2], most)
    parts = [StreamedSplit(sources[split], count, specs, decode) for split, count in splits.items()]
    return ImageDataset(name, classes, shape, *parts)


def _without_boxes(builder: Any, feature: str) -> set[str]:
    """Splits whose boxes are not published: the first images tell, of which none has one."""

    def has_boxes(split: str, count: int) -> bool:
        first = undecoded(builder, f"{split}[:{min(count, LOOKED_AT)}]", objects=feature)
        return any(len(example["objects"]["bbox"]) for example in first.as_numpy_iterator())

    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    return {split for split, count in counts.items() if count and not has_boxes(split, count)} - {"train"}


def _objects(name: str, features: Any) -> tuple[str, str, tuple[str, ...]]:
    """The feature that holds the boxes, that of their labels inside, and the names of the classes."""
    import tensorflow_datasets as tfds

    for feature, kind in features.items():
        inside = getattr(kind, "feature", None)
        if "image" in features and isinstance(inside, tfds.features.FeaturesDict) and "bbox" in inside:
            for label, each in inside.items():
                if isinstance(each, tfds.features.ClassLabel):
                    return feature, label, tuple(each.names)
    raise DatasetError(
        f"{name} has {', '.join(features)}; a detection set has an image, and objects with bbox and label"
    )


def _flat(source: Any, label: str) -> Any:
    """A `tf.data.Dataset` of the image, `bbox`, `label` and `crowd` of each example."""
    import tensorflow as tf

    def flatten(example):
        objects = example["objects"]
        crowd = next((objects[each] for each in CROWDS if each in objects), tf.zeros_like(objects[label], tf.bool))
        return {"image": example["image"], "bbox": objects["bbox"], "label": objects[label], "crowd": crowd}

    return source.map(flatten)
