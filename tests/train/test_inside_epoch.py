"""A run that dies inside an epoch goes on from there, and ends as one that never did, to the bit."""

import csv

import keras
import numpy as np
import pytest
from helpers import make_recipe

from kzoo.errors import KzooError, OutputError
from kzoo.recipe import Recipe
from kzoo.train import callbacks, loop, train
from kzoo.train.checkpoints import Mark
from kzoo.train.run_directory import checkpoints_of

NETWORK = dict(model="simple_cnn", model_options=dict(widths=(4, 8), dense_units=16))
RANDOM = dict(ema=0.9, accumulate=2, augmentation=("flip",), **NETWORK)


@pytest.fixture
def dying(recipe, monkeypatch) -> Recipe:
    """Two epochs of four batches with dropout, averages, accumulation and flips; nothing is finished."""
    monkeypatch.setattr(loop, "finish", lambda *_: {})
    return recipe.replace(**RANDOM)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Recipe:
    """The recipe of a run that never died."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "finish", lambda *_: {})
        options = dict(image_size=16, epochs=2, smoke=True, output_dir=tmp_path_factory.mktemp("whole"), **RANDOM)
        recipe = make_recipe(name="test", dataset="digits", **options)
        train(recipe)
    return recipe


def die_behind(batches: int):
    """Keeps its checkpoint behind some batches, and dies."""
    seen = []

    def on_train_batch_end(self, batch, logs=None):
        seen.append(batch)
        if len(seen) == batches:
            self.minutes = 0.0
            KEEP(self, batch, logs)
            raise KeyboardInterrupt

    return on_train_batch_end


KEEP = callbacks.InsideEpoch.on_train_batch_end


def until(batches: int, recipe: Recipe, monkeypatch) -> list[Mark]:
    """Trains some batches; what can be gone on from."""
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.InsideEpoch, "on_train_batch_end", die_behind(batches))
        with pytest.raises(KeyboardInterrupt):
            train(recipe)
    return checkpoints_of(recipe.run_dir).marks()


def ending(recipe: Recipe) -> tuple[list[dict], list[np.ndarray]]:
    """History without its seconds; weights and optimizer of the last epoch and of the best."""
    with (recipe.run_dir / "history.csv").open() as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    checkpoints, arrays = checkpoints_of(recipe.run_dir), []
    for kind in ("epoch", "best"):
        model = keras.saving.load_model(checkpoints.path(checkpoints.epochs(kind)[0], kind))
        arrays += [variable.numpy() for variable in (*model.weights, *model.optimizer.variables)]
    return rows, arrays


def assert_same_end(one: Recipe, other: Recipe) -> None:
    (rows, arrays), (others, other_arrays) = ending(one), ending(other)
    assert rows == others
    for array, theirs in zip(arrays, other_arrays, strict=True):
        np.testing.assert_array_equal(array, theirs)


def test_it_ends_as_a_run_that_never_died(dying, whole, monkeypatch, capsys):
    parts = dying
    assert until(3, parts, monkeypatch) == [Mark(0, 3)]
    assert until(3, parts, monkeypatch) == [Mark(1, 2), Mark(1)]  # over the end of an epoch
    capsys.readouterr()
    train(parts)
    assert "resuming after 1 of 2 epochs and 2 batches" in capsys.readouterr().out
    assert_same_end(whole, parts)
    assert not list((parts.run_dir / "checkpoints").glob("step_*"))


def test_where_it_is_damaged_the_epoch_is_run_again(dying, whole, monkeypatch, capsys):
    parts = dying
    until(6, parts, monkeypatch)
    (state,) = (parts.run_dir / "checkpoints").glob("step_*.npz")
    state.write_bytes(state.read_bytes()[:50])
    capsys.readouterr()
    train(parts)
    told = capsys.readouterr().out
    assert "the checkpoint behind batch 2 of epoch 2 cannot be used, trying the one before" in told
    assert "resuming after 1 of 2 epochs" in told
    assert_same_end(whole, parts)


def test_weights_that_are_no_numbers_are_not_kept(dying, monkeypatch):
    inf = keras.metrics.Mean.result
    monkeypatch.setattr(keras.metrics.Mean, "result", lambda self: inf(self) * float("nan"))
    with pytest.raises(KzooError, match="the loss became NaN in epoch 1"):
        train(dying.replace(checkpoint_minutes=0.0))
    assert checkpoints_of(dying.run_dir).marks() == []


def test_a_run_of_other_settings_is_refused_inside_its_first_epoch_too(dying, monkeypatch):
    until(2, dying, monkeypatch)
    with pytest.raises(OutputError, match="seed 0 -> 1"):
        train(dying.replace(seed=1))
