"""The gradient of a score in a tensor: one function for each backend of Keras."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def score_and_gradient(function: Callable[[Any], Any], tensor: Any) -> tuple[np.ndarray, np.ndarray]:
    """The value of a function and its gradient, as float32.

    Args:
        function: function from a tensor (n, ...) to a score (n,) of each of its rows by itself.
        tensor: (n, ...).

    Returns:
        Scores (n,) and gradients (n, ...), of each score in its own row.

    Example:
        >>> score_and_gradient(lambda x: keras.ops.sum(x**2, axis=-1), np.ones((2, 3), "float32"))[1]
        array([[2., 2., 2.],
               [2., 2., 2.]], dtype=float32)
    """
    scores, gradient = _GRADIENTS[keras.backend.backend()](function, keras.ops.convert_to_tensor(tensor))
    return _as_array(scores), _as_array(gradient)


def compiled_gradient(function: Callable[[Any], Any]) -> Callable[[Any], tuple[np.ndarray, np.ndarray]]:
    """What `score_and_gradient` does with a function, compiled for many tensors of one shape; torch runs it as it is.

    Example:
        >>> gradient = compiled_gradient(lambda x: keras.ops.sum(x**2, axis=-1))
        >>> [gradient(np.full((1, 2), step, "float32"))[1] for step in range(50)]
    """
    backend = keras.backend.backend()
    compiled = _COMPILERS.get(backend, lambda each: each)(functools.partial(_GRADIENTS[backend], function))

    def run(tensor: Any) -> tuple[np.ndarray, np.ndarray]:
        scores, gradient = compiled(keras.ops.convert_to_tensor(tensor))
        return _as_array(scores), _as_array(gradient)

    return run


def _by_tensorflow(function, tensor):
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:  # no gradients of weights are asked
        tape.watch(tensor)
        scores = function(tensor)
    return scores, tape.gradient(scores, tensor, unconnected_gradients="zero")


def _by_jax(function, tensor):
    import jax

    scores, pull = jax.vjp(function, tensor)
    return scores, pull(keras.ops.ones_like(scores))[0]


def _by_torch(function, tensor):
    import torch

    tensor = tensor.detach().requires_grad_()
    scores = function(tensor)
    if not scores.requires_grad:
        return scores, torch.zeros_like(tensor)
    (gradient,) = torch.autograd.grad(scores.sum(), tensor, allow_unused=True)
    return scores.detach(), torch.zeros_like(tensor) if gradient is None else gradient


def _compiled_by_tensorflow(function):
    import tensorflow as tf

    return tf.function(function)


def _compiled_by_jax(function):
    import jax

    return jax.jit(function)


_COMPILERS = {"tensorflow": _compiled_by_tensorflow, "jax": _compiled_by_jax}
_GRADIENTS = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}


def _as_array(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor).astype("float32")
