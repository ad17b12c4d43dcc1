"""A run of some minutes: as many epochs as fit, a learning rate that falls to its end, and going on with the same."""

import json

import keras
import pytest

from kzoo.errors import counted
from kzoo.train import loop, train
from kzoo.train.run_directory import checkpoints_of


def test_a_run_of_some_minutes_goes_on_with_its_number_of_epochs(recipe, monkeypatch, capsys):
    monkeypatch.setattr(loop, "finish", lambda *_: {})
    network = dict(model="simple_cnn", model_options=dict(widths=(4, 8), dense_units=16))
    recipe = recipe.replace(minutes=0.001, smoke=False, batch_size=256, epochs=40, image_size=8, **network)
    train(recipe)
    stored = json.loads((recipe.run_dir / "recipe.json").read_text())
    epochs = stored["schedule"]["epochs"]
    assert 1 <= epochs < 40
    assert checkpoints_of(recipe.run_dir).epochs()[0] == epochs
    assert f"{counted(epochs, 'epoch')} for 0.001 minutes" in capsys.readouterr().out
    monkeypatch.setattr(keras.Model, "train_on_batch", lambda *_: pytest.fail("is measured once"))
    train(recipe)
    assert "all epochs are done" in capsys.readouterr().out
