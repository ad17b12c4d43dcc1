"""Quantization-aware fine-tuning by the recipe engine: from a trained file to integer files and their card."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import pixels, randomise

import kzoo
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.surgery.fake_quantization import (
    FakeQuantize,
    FakeQuantizedWeights,
    insert_fake_quantization,
    remove_fake_quantization,
    round_kernel,
)
from kzoo.train import train
from kzoo.train.run_directory import checkpoints_of

SHAPE = (16, 16, 3)
CHECKPOINT = Path(__file__).parents[3] / "shared/data/weights/cifar_resnet20.safetensors"


@pytest.fixture
def fine_tuning(recipe, tmp_path):
    """One epoch for 4-bit kernels, from a model of random weights."""
    model = randomise(kzoo.build(recipe.model, input_shape=SHAPE))
    model.save(tmp_path / "trained.keras")
    return recipe.replace(
        weights=str(tmp_path / "trained.keras"),
        quantization_aware="int4_per_tensor",
        epochs=1,
        learning_rate=1e-3,
        warmup_epochs=0,
        export=("int8",),
    )


def test_from_a_trained_model_to_integer_files(fine_tuning, tmp_path):
    report = train(fine_tuning)
    directory = fine_tuning.run_dir
    trained = keras.saving.load_model(checkpoints_of(directory).best(report["best_epoch"]))
    kinds = [type(layer) for layer in trained.layers]
    assert kinds.count(FakeQuantizedWeights) == 6
    assert kinds.count(FakeQuantize) == 11
    wrapped = [layer for layer in trained.layers if isinstance(layer, FakeQuantizedWeights)]
    assert {(type(layer.layer).__name__, layer.bits, layer.per_channel) for layer in wrapped} == {
        ("Conv2D", 4, False),
        ("Dense", 8, False),  # an int4 file has dense layers of 8 bits
    }

    start = keras.saving.load_model(tmp_path / "trained.keras")
    finished, kept = (keras.saving.load_model(directory / name) for name in ("model.keras", "start.keras"))
    folded = [layer.name for layer in kzoo.fold_batch_norm(start).layers]
    assert [layer.name for layer in finished.layers] == [*folded, "meaning"]
    images = pixels(8, *SHAPE)
    np.testing.assert_allclose(kept(images), start(images), atol=1e-5)
    assert np.abs(np.array(finished(images)) - np.array(start(images))).max() > 1e-3
    for layer in finished.layers:
        if layer.name.endswith(("conv", "conv1", "conv2", "dense")):
            kernel = np.array(trained.get_layer(layer.name).layer.kernel)
            bits = 8 if layer.name.endswith("dense") else 4
            levels = 2 ** (bits - 1) - 1
            assert len(np.unique(layer.kernel)) <= 2 * levels + 1
            np.testing.assert_allclose(layer.kernel, round_kernel(layer, bits, False), atol=1e-6)
            assert np.abs(layer.kernel - kernel).max() <= np.abs(kernel).max() / levels / 2 + 1e-6

    assert list(report["models"]) == ["keras", "folded", "start", "int8", "start_int8"]
    assert list(report["exports"]) == ["int8", "start_int8"]
    card = (directory / "README.md").read_text()
    assert "The `start` files hold the weights that quantization-aware fine-tuning began with" in card
    for file in ("model_int8.tflite", "start_int8.tflite", "start.keras"):
        assert f"| `{file}` |" in card
        assert (directory / file).stat().st_size > 0
    assert json.loads((directory / "recipe.json").read_text())["quantization_aware"] == "int4_per_tensor"


@pytest.mark.slow
def test_goes_on_where_it_stopped(fine_tuning):
    train(fine_tuning)
    longer = fine_tuning.replace(epochs=2, export=())
    train(longer)
    checkpoints = checkpoints_of(fine_tuning.run_dir)
    assert checkpoints.epochs() == [2, 1]
    assert int(keras.saving.load_model(checkpoints.path(2)).optimizer.iterations) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(weights=None), "fine-tunes a trained model; pass its file as weights"),
        (dict(precision="mixed_float16"), "needs precision='float32', and it is 'mixed_float16'"),
        (dict(quantization_aware="int3"), "quantization_aware='int3' is not accepted; use one of 'int8'"),
    ],
)
def test_what_it_needs_is_checked_first(fine_tuning, changes, message):
    with pytest.raises(InvalidValueError, match=message):
        train(fine_tuning.replace(**changes))
    assert not fine_tuning.run_dir.exists()


@pytest.mark.slow
def test_closes_most_of_the_gap_of_4_bit_kernels(tmp_path):
    """Real files, kernels on a 4-bit grid with one step each: 87 % without help, 91 % after 100 steps of 64 images."""
    import tensorflow_datasets as tfds

    builder = tfds.builder("cifar10")
    if not CHECKPOINT.exists() or not builder.data_path.exists():
        pytest.skip(f"no checkpoint at {CHECKPOINT}, or CIFAR-10 is not prepared at {builder.data_path}")
    (images, labels), (test_images, test_labels) = (
        next(iter(builder.as_dataset(split, batch_size=10_000, as_supervised=True).as_numpy_iterator()))
        for split in ("train[:6400]", "test[:2000]")
    )
    images = images.astype("float32")
    model = kzoo.fold_batch_norm(kzoo.build("cifar_resnet20", weights=CHECKPOINT, classifier_activation=None))

    def accuracy(trained: keras.Model) -> float:
        kzoo.export(remove_fake_quantization(trained), tmp_path / "model.tflite", "int8", calibration=images[:100])
        outputs = LiteRTModel(tmp_path / "model.tflite").predict(test_images)
        return float((outputs.argmax(axis=1) == test_labels).mean())

    rounding = insert_fake_quantization(model, "int4", per_channel=False)
    exact = float((model.predict(test_images, verbose=0).argmax(axis=1) == test_labels).mean())
    before = accuracy(rounding)
    rate = keras.optimizers.schedules.CosineDecay(0.0, 90, warmup_target=3e-4, warmup_steps=10)
    rounding.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    rounding.fit(images, labels, batch_size=64, verbose=0)
    assert exact - before > 0.02
    assert exact - accuracy(rounding) < (exact - before) / 2
