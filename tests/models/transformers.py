"""What the tests of the hierarchical transformers share."""

import keras
import numpy as np
import safetensors.numpy
from goldens.seeded import seeded

import kzoo
from kzoo.weights.torch_names import torch_names


def load_seeded(model, path, layout: int = 0):
    """Loads a safetensors file of seeded arrays under the names of a torch code base: 0 the commonest, -1 the last."""
    state = {}
    for variable in model.weights:
        name, shape = torch_names(variable.path, model)[layout], tuple(variable.shape)
        if variable.name == "kernel":
            shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
        state[name] = seeded(name, shape)
    safetensors.numpy.save_file(state, path)
    report = kzoo.load_weights(model, path)
    assert len(report.loaded) == len(model.weights) == len(state)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.LayerNormalization)]
    assert {norm.epsilon for norm in norms} == {1e-5}  # torch's, too small to see in every logit
    return model


def layer_norm(x, layer) -> np.ndarray:
    """Layer normalisation over the channels in float64."""
    x = np.asarray(x, "float64")
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + layer.epsilon) * np.array(layer.gamma) + np.array(layer.beta)


def rates(model) -> list[float]:
    """The rate of every stochastic depth, in order."""
    return [layer.rate for layer in model.layers if layer.name.endswith("_drop_path")]


def inner(model, name: str) -> keras.Model:
    """The model up to the layer `name`."""
    return keras.Model(model.input, model.get_layer(name).output)
