"""Muon: kernels of convolutions are orthogonalised as matrices, and the head is AdamW's."""

import keras
import numpy as np
import pytest

from kzoo.train.muon import Muon


@pytest.mark.parametrize("shape", [(3, 3, 5, 7), (2, 1, 3, 20), (12, 9)])
def test_a_step_is_the_orthogonal_factor_of_the_gradient(shape):
    """Newton and Schulz's five iterations leave singular values of 0.7 to 1.2 where one is meant."""
    gradient = np.random.default_rng(0).normal(size=shape).astype("float32")
    kernel = keras.Variable(np.zeros(shape, "float32"), name="kernel")
    Muon(learning_rate=0.1, weight_decay=0.0).apply([gradient], [kernel])
    left, _, right = np.linalg.svd(gradient.reshape(-1, shape[-1]), full_matrices=False)
    step = -kernel.numpy().reshape(-1, shape[-1]) / (0.1 * 0.2 * np.sqrt(max(left.shape[0], shape[-1])))
    sizes = np.diag(left.T @ step @ right.T)
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3
    np.testing.assert_allclose(left * sizes @ right, step, atol=2e-3)


def test_what_is_no_kernel_or_of_the_head_is_of_adamw():
    names = {"kernel": (3, 3, 2, 4), "gamma": (4,), "table": (5, 4), "depthwise_kernel": (3, 3, 4, 1)}
    weights = [keras.Variable(np.zeros(shape), name=name) for name, shape in names.items()]
    with keras.name_scope("head_dense"):
        weights.append(keras.Variable(np.zeros((4, 3)), name="kernel"))
    optimizer = Muon(learning_rate=0.1, weight_decay=0.0, exclude_layers=["head"])
    optimizer.apply([np.full(weight.shape, 2.0, "float32") for weight in weights], weights)
    first, *others = weights
    for weight in others:
        np.testing.assert_allclose(weight.numpy(), -0.1, rtol=1e-4)
    assert np.abs(first.numpy() + 0.1).max() > 0.01
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert (type(again), again.exclude_layers) == (Muon, ["head"])
