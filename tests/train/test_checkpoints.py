"""Which epochs of a run are kept."""

import keras
import numpy as np
import pytest

from kzoo.train.callbacks import Checkpoint
from kzoo.train.checkpoints import Checkpoints, Mark
from kzoo.train.run_directory import missing_bytes


def compiled(optimizer) -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")])
    model.compile(optimizer, "mse", auto_scale_loss=False)
    return model


@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.AdamW])
@pytest.mark.parametrize("scaled", [False, True])
def test_weights_and_state_of_the_optimizer_come_back_for_every_optimizer(optimizer, scaled, tmp_path):
    """Of half precision too, whose loss is scaled; the room that the run needs was asked for before."""

    def make() -> keras.Model:
        inner = optimizer(0.1)
        return compiled(keras.optimizers.LossScaleOptimizer(inner) if scaled else inner)

    trained, other = make(), make()
    trained.fit(np.ones((4, 2)), np.zeros((4, 1)), verbose=0)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(trained, 1)
    missing_bytes(other, tmp_path)
    assert checkpoints.restore(lambda mark: other) == (other, Mark(1), {})
    for own, saved in ((other.weights, trained.weights), (other.optimizer.variables, trained.optimizer.variables)):
        for mine, theirs in zip(own, saved, strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=theirs.path)


def test_the_best_epoch_is_kept_when_the_newest_are_others(tmp_path):
    model = compiled("sgd")
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
