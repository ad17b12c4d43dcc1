"""The average of the weights of a run, which is judged and kept in the place of the last ones."""

from collections.abc import Callable, Iterable

import keras
import numpy as np

from kzoo.flatten import all_layers

BATCHES = 100  # that statistics of batch normalisation are estimated from


class AveragedWeights(keras.callbacks.Callback):
    """Validates with the optimizer's moving average of the weights, and remembers what was validated.

    The average of weights has other statistics than the average of their statistics, which batch normalisation would
    use: they are estimated anew for it, from training images (arXiv:1803.05407, section 3.2). Training goes on with
    its own weights and statistics, to the bit: `keras.callbacks.SwapEMAWeights` adds and subtracts, and rounds.

    Args:
        batches: gives the training images (n, height, width, 3) of an epoch, counted from zero, batch by batch.
    """

    def __init__(self, batches: Callable[[int], Iterable]):
        super().__init__()
        self._batches = batches
        self._epoch = 0
        self.validated: list[np.ndarray] = []

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_test_begin(self, logs=None):
        self._own = self.model.get_weights()
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)  # behind a loss scale
        averages = optimizer._model_variables_moving_average
        for weight, average in zip(self.model.trainable_weights, averages, strict=True):
            weight.assign(average.numpy())  # not the array itself, which validation under JAX gives away
        estimate_statistics(self.model, self._batches(self._epoch))

    def on_test_end(self, logs=None):
        self.validated = self.model.get_weights()
        self.model.set_weights(self._own)

    def save(self, save: Callable[[], None]) -> None:
        """Calls `save` while the model has the weights that were validated last."""
        own = self.model.get_weights()
        self.model.set_weights(self.validated)
        try:
            save()
        finally:
            self.model.set_weights(own)


def estimate_statistics(model: keras.Model, batches: Iterable) -> None:
    """Makes the moving statistics of batch normalisation the means of those of some batches, for the present weights.

    Args:
        model: any model; normalisation that is frozen stays as it is.
        batches: images (n, height, width, channels), batch by batch.
    """
    norms = [
        layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    if not norms:
        return
    statistics = [each for layer in norms for each in (layer.moving_mean, layer.moving_variance)]
    momenta, totals, count = [layer.momentum for layer in norms], [0.0] * len(statistics), 0
    for layer in norms:
        layer.momentum = 0.0  # a batch leaves its own statistics
    try:
        forward = _compiled(model)
        for images in batches:
            forward(images)
            totals = [total + each.numpy().astype("float64") for total, each in zip(totals, statistics, strict=True)]
            count += 1
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
    for each, total in zip(statistics, totals, strict=True):
        each.assign(total / max(count, 1))


def _compiled(model: keras.Model) -> Callable:
    """A pass in training mode, compiled."""
    if keras.backend.backend() == "jax":
        return _compiled_by_jax(model)
    import tensorflow as tf

    return tf.function(lambda images: model(images, training=True))


def _compiled_by_jax(model: keras.Model) -> Callable:
    import jax

    learned, others = model.trainable_variables, model.non_trainable_variables
    step = jax.jit(lambda *state, images: model.stateless_call(*state, images, training=True)[1])

    def forward(images) -> None:
        state = ([variable.value for variable in variables] for variables in (learned, others))
        for variable, value in zip(others, step(*state, images=images), strict=True):
            variable.assign(value)

    return forward
