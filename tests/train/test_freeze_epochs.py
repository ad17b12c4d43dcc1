"""A run whose head learns alone at first: what moves when, each phase its own schedule, and going on to the bit."""

import keras
import numpy as np
import pytest

import kzoo
from kzoo.recipe import Recipe
from kzoo.train import callbacks, loop, train
from kzoo.train.run_directory import checkpoints_of


@pytest.fixture
def tuning(recipe, tmp_path, monkeypatch) -> Recipe:
    """Three epochs from weights of a file, the first with a frozen trunk; nothing is finished."""
    monkeypatch.setattr(loop, "finish", lambda *_: {})
    monkeypatch.setattr(loop, "SMOKE_EPOCHS", 3)
    kzoo.build("tiny", input_shape=(16, 16, 3), num_classes=10).save(tmp_path / "start.keras")
    start = str(tmp_path / "start.keras")
    return recipe.replace(weights=start, epochs=3, freeze_epochs=1, layer_decay=0.5)


def kernel(path, name: str) -> np.ndarray:
    return keras.saving.load_model(path).get_layer(name).get_weights()[0]


def test_the_head_learns_alone_and_then_all_does(tuning, tmp_path, monkeypatch):
    rates = []
    end = callbacks.InsideEpoch.on_train_batch_end

    def watch(self, batch, logs=None):
        rates.append(float(self.model.optimizer.learning_rate))
        end(self, batch, logs)

    monkeypatch.setattr(callbacks.InsideEpoch, "on_train_batch_end", watch)
    train(tuning.replace(warmup_epochs=0.0))
    start, checkpoints = tmp_path / "start.keras", checkpoints_of(tuning.run_dir)
    first, last = (checkpoints.path(epoch) for epoch in (2, 3))
    steps = len(rates) // 3
    assert rates[steps - 1] == pytest.approx(0, abs=1e-7), "the first phase ends at zero"
    assert rates[steps] > 0.09, "the second begins anew"
    assert rates[-1] == pytest.approx(0, abs=1e-7)
    assert (kernel(first, "stem_conv") != kernel(start, "stem_conv")).any()
    assert (kernel(last, "head_dense") != kernel(first, "head_dense")).any()


def test_statistics_and_weights_of_the_trunk_stand_still_in_the_first_phase(tuning, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.EpochSeconds, "on_epoch_begin", stop_at(1))
        with pytest.raises(KeyboardInterrupt):
            train(tuning)
    kept = keras.saving.load_model(checkpoints_of(tuning.run_dir).path(1))
    start = keras.saving.load_model(tmp_path / "start.keras")
    moved = {
        layer.name
        for layer in kept.layers
        for one, two in zip(layer.get_weights(), start.get_layer(layer.name).get_weights(), strict=True)
        if (one != two).any()
    }
    assert moved == {"head_dense"}


def stop_at(epoch: int):
    begin = callbacks.EpochSeconds.on_epoch_begin

    def on_epoch_begin(self, number, logs=None):
        if number == epoch:
            raise KeyboardInterrupt
        begin(self, number, logs)

    return on_epoch_begin


@pytest.mark.parametrize(
    "batches", [pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(6, marks=pytest.mark.slow)]
)
def test_it_goes_on_to_the_bit_inside_between_and_behind_the_phases(batches, tuning):
    from test_inside_epoch import assert_same_end, die_behind

    whole, parts = (tuning.replace(output_dir=tuning.output_dir / name) for name in ("whole", "parts"))
    train(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.InsideEpoch, "on_train_batch_end", die_behind(batches))
        with pytest.raises(KeyboardInterrupt):
            train(parts)
    train(parts)
    assert_same_end(whole, parts)
