"""TFDS sets with boxes, of a tiny one that is made here."""

import logging

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from kzoo.data.detection_sets import load_boxes
from kzoo.errors import DatasetError

SIZES = (30, 40), (20, 50)  # height and width of the pictures, in turn
# top, left, bottom, right, as TFDS has them, label and whether it is a crowd
OBJECTS = (
    [((0.1, 0.2, 0.5, 0.7), 1, False), ((0.2, 0.1, 0.9, 0.4), 0, True)],
    [((0.3, 0.3, 0.8, 0.6), 0, False), ((0.3, 0.3, 0.8, 0.6), 0, False), ((0.5, 0.5, 0.5, 0.9), 1, False)],
)


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")

    def examples(count):
        def generate():
            for number in range(count):
                boxes, labels, crowds = zip(*OBJECTS[number % 2], strict=True)
                yield {
                    "image": np.full((*SIZES[number % 2], 3), number, "uint8"),
                    "objects": {"bbox": np.float32(boxes), "label": np.int64(labels), "is_crowd": np.array(crowds)},
                }

        inside = {
            "bbox": tf.TensorSpec((None, 4), tf.float32),
            "label": tf.TensorSpec((None,), tf.int64),
            "is_crowd": tf.TensorSpec((None,), tf.bool),
        }
        signature = {"image": tf.TensorSpec((None, None, 3), tf.uint8), "objects": inside}
        return tf.data.Dataset.from_generator(generate, output_signature=signature)

    objects = {
        "bbox": tfds.features.BBoxFeature(),
        "label": tfds.features.ClassLabel(names=["cat", "dog"]),
        "is_crowd": tfds.features.Scalar(np.bool_),
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_boxes",
        version="1.0.0",
        data_dir=directory,
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(None, None, 3)), "objects": tfds.features.Sequence(objects)}
        ),
        split_datasets={"train": examples(8), "test": examples(4)},
    )
    return str(directory)


def test_boxes_of_tfds_are_checked_and_padded(tfds_dir, caplog):
    with caplog.at_level(logging.WARNING, "kzoo"):
        data = load_boxes("tiny_boxes", data_dir=tfds_dir, image_size=(10, 16), validation_fraction=0.25)
    assert (data.train.size, data.validation.size, data.test.size, data.classes) == (6, 2, 4, ("cat", "dog"))
    assert len([record for record in caplog.records if record.name == "kzoo"]) == 3, "one for each split"
    assert "1 box there twice" in caplog.text
    assert "less than 1 pixel wide or high, and dropped" in caplog.text
    examples = data.test.arrays()
    assert examples["image"].shape == (4, 10, 16, 3)
    for number in range(4):
        first = examples["size"][number].tolist() == [30, 40]
        assert first or examples["size"][number].tolist() == [20, 50]
        assert examples["classes"][number].tolist() == ([1, -2] if first else [0, -1])
        top, left, bottom, right = OBJECTS[0 if first else 1][0][0]
        np.testing.assert_allclose(examples["boxes"][number, 0], [left, top, right, bottom], atol=1e-6)


def test_mistakes_of_tfds_are_one_line(tfds_dir):
    with pytest.raises(DatasetError, match="differ in size; say which to resize to, as in --image-size 480 640"):
        load_boxes("tiny_boxes", data_dir=tfds_dir)
    with pytest.raises(DatasetError, match="has boxes of 'dog'; the classes are said to be cat"):
        load_boxes("tiny_boxes", data_dir=tfds_dir, image_size=(8, 8), class_names=("cat",))
    with pytest.raises(DatasetError, match="group_by='a' is for pictures with paths"):
        load_boxes("tiny_boxes", data_dir=tfds_dir, group_by="a")
