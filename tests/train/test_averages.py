"""The moving average of the weights: what is validated, kept and finished, and how training goes on."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise

import kzoo
from kzoo.train import train
from kzoo.train.averages import AveragedWeights, estimate_statistics
from kzoo.train.run_directory import checkpoints_of

MOMENTUM = 0.75


@pytest.fixture
def model() -> keras.Model:
    model = randomise(
        kzoo.build("cifar_resnet20", depths=(1, 1), widths=(4, 8), input_shape=(8, 10, 3), num_classes=3)
    )
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=MOMENTUM), "sparse_categorical_crossentropy")
    return model


def test_statistics_are_those_of_the_batches_for_the_present_weights(model):
    """Against one layer by hand: the first normalisation sees the first convolution alone."""
    frozen = model.get_layer("stage2_block1_bn1")
    frozen.trainable = False
    before = frozen.moving_mean.numpy()
    batches = [pixels(3, 8, 10, 3) + number for number in range(4)]
    estimate_statistics(model, batches)
    maps = keras.Model(model.input, model.get_layer("stem_conv").output)
    seen = [maps(batch).numpy() for batch in batches]
    norm = model.get_layer("stem_bn")
    np.testing.assert_allclose(norm.moving_mean, np.mean([each.mean((0, 1, 2)) for each in seen], 0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, np.mean([each.var((0, 1, 2)) for each in seen], 0), rtol=1e-4)
    np.testing.assert_array_equal(frozen.moving_mean, before)
    assert norm.momentum == 0.9 or norm.momentum == 0.99


def test_the_average_is_validated_and_training_goes_on_with_its_own(model):
    images, labels = pixels(8, 8, 10, 3), np.array([0, 1, 2, 0, 1, 2, 0, 1])
    average, seen = [], {}

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            now = [weight.numpy() for weight in self.model.trainable_weights]
            before = average or now
            average[:] = [MOMENTUM * a + (1 - MOMENTUM) * b for a, b in zip(before, now, strict=True)]

        def on_test_begin(self, logs=None):
            seen["validated"] = [weight.numpy() for weight in self.model.trainable_weights]
            seen["own"] = averages._own

        def on_epoch_end(self, epoch, logs=None):
            seen["after"] = self.model.get_weights()
            averages.save(lambda: seen.update(kept=self.model.get_weights()))
            seen["trained"] = [weight.numpy() for weight in self.model.trainable_weights]

    averages = AveragedWeights(lambda epoch: [images[:4] + epoch])
    data = dict(batch_size=2, shuffle=False, validation_data=(images, labels), verbose=0)
    model.fit(images, labels, epochs=2, callbacks=[averages, Watch()], **data)
    for found, expected in zip(seen["validated"], average, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for found, expected in zip(seen["after"], seen["own"], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert any((one != two).any() for one, two in zip(seen["trained"], seen["validated"], strict=True))
    for found, expected in zip(seen["kept"], averages.validated, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_run_keeps_the_average_and_goes_on_to_the_bit(recipe, monkeypatch):
    recipe = recipe.replace(ema=0.9, patience=5, learning_rate=0.02)
    whole = recipe.replace(output_dir=recipe.output_dir / "whole")
    report = train(whole)
    epochs = checkpoints_of(whole.run_dir)
    finished = keras.saving.load_model(whole.run_dir / "model.keras")
    best = keras.saving.load_model(epochs.best(report["best_epoch"], averaged=True))
    raw = keras.saving.load_model(epochs.path(report["best_epoch"]))
    for kept, average, own in zip(finished.weights, best.weights, raw.weights, strict=True):
        np.testing.assert_array_equal(kept, average)
        assert (average.numpy() != own.numpy()).any(), average.path

    parts = recipe.replace(output_dir=recipe.output_dir / "parts")
    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks.CSVLogger, "on_epoch_end", stop_behind(keras.callbacks.CSVLogger.on_epoch_end))
        with pytest.raises(KeyboardInterrupt):
            train(parts)
    train(parts)
    again = keras.saving.load_model(parts.run_dir / "model.keras")
    for one, other in zip(again.weights, finished.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def stop_behind(log):
    """Logs the second epoch and dies before its checkpoint."""

    def stop(self, epoch, logs=None):
        log(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    return stop


def test_a_run_that_gets_no_better_ends_early(recipe, capsys):
    still = dict(model="simple_cnn", model_options=dict(widths=(4, 8), dense_units=8), learning_rate=0.0)
    recipe = recipe.replace(epochs=9, patience=2, smoke=False, batch_size=600, image_size=8, **still)
    assert train(recipe)["best_epoch"] == 1
    assert checkpoints_of(recipe.run_dir).epochs() == [3, 2]
    assert "ended early: the last 2 epochs were no better" in capsys.readouterr().out
    assert train(recipe)["best_epoch"] == 1
    assert "all epochs are done" in capsys.readouterr().out
    assert checkpoints_of(recipe.run_dir).epochs() == [3, 2]
