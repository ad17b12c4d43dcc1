"""A CIFAR-10 ResNet-20 that somebody else trained in torch, on the real test images."""

from pathlib import Path

import keras
import numpy as np
import pytest

import kzoo
from kzoo.edge import LiteRTModel

CHECKPOINT = Path(__file__).parents[3] / "shared/data/weights/cifar_resnet20.safetensors"
CORRECT = 9173  # of 10,000: the test error that its author published, 8.27 %


def cifar10(split: str):
    import tensorflow_datasets as tfds

    builder = tfds.builder("cifar10")
    if not builder.data_path.exists():
        pytest.skip(f"CIFAR-10 is not prepared at {builder.data_path}")
    return next(iter(builder.as_dataset(split, batch_size=10_000, as_supervised=True).as_numpy_iterator()))


def correct(outputs, labels) -> int:
    return int((np.argmax(outputs, axis=-1) == labels).sum())


@pytest.mark.slow
def test_classifies_the_real_test_images(tmp_path):
    if not CHECKPOINT.exists():
        pytest.skip(f"no checkpoint at {CHECKPOINT}")
    images, labels = cifar10("test")
    model = kzoo.build("cifar_resnet20", weights=CHECKPOINT)
    assert abs(correct(model.predict(images, batch_size=250, verbose=0), labels) - CORRECT) <= 2

    folded = kzoo.fold_batch_norm(model)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
    assert abs(correct(folded.predict(images, batch_size=250, verbose=0), labels) - CORRECT) <= 2

    report = kzoo.export(folded, tmp_path / "float32.tflite", calibration=images[:16])
    assert report.xnnpack_partitions == 1
    assert abs(correct(LiteRTModel(report.path).predict(images), labels) - CORRECT) <= 2

    training_images, _ = cifar10("train[:200]")
    report = kzoo.export(folded, tmp_path / "int8.tflite", precision="int8", calibration=training_images)
    assert report.xnnpack_partitions == 1
    assert correct(LiteRTModel(report.path).predict(images), labels) >= 9120
