"""Which epochs of a run are kept."""

import keras
import numpy as np

from kzoo.train.callbacks import Checkpoint
from kzoo.train.checkpoints import Checkpoints


def test_the_best_epoch_is_kept_when_the_newest_are_others(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")])
    model.compile("sgd", "mse")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    callback = Checkpoint(checkpoints, "accuracy")
    callback.set_model(model)
    scores = [(0.5, 1.0), (0.9, 1.0), (0.9, 2.0), (0.3, 0.1), (0.8, 0.1)]  # accuracy and loss
    for epoch, (accuracy, loss) in enumerate(scores):
        model.get_layer("dense").bias.assign([epoch + 1])
        callback.on_epoch_end(epoch, dict(loss=1.0, val_accuracy=accuracy, val_loss=loss))
    assert checkpoints.epochs() == [5, 4]
    assert checkpoints.epochs("best") == [2]
    best = keras.saving.load_model(checkpoints.best(2)).get_layer("dense")
    np.testing.assert_array_equal(best.bias, [2])
