"""Bias correction: taking out the mean error that rounded kernels make."""

import keras
import numpy as np

from kzoo.errors import InvalidValueError, check_choice
from kzoo.graph import as_functional, read_graph
from kzoo.precisions import PRECISIONS
from kzoo.surgery.fake_quantization import CHANNEL_AXES, INTEGER, check_folded, kernel_bits, round_kernel
from kzoo.surgery.rewrite import copy_layer

_BATCH = 16  # images, whose maps are all in memory at once


def correct_bias(
    model: keras.Model, calibration: np.ndarray, precision: str = "int8", per_channel: bool = True
) -> keras.Model:
    """Returns a model whose biases make up for the mean error of its kernels once they are rounded.

    Layer by layer, in the order in which they run, the mean of each output channel before its activation is
    compared between the float model and the one with rounded kernels and the biases corrected so far; the
    difference goes into the bias (arXiv:1906.04721, section 4.2, in the empirical form of its appendix D). The
    kernels stay as they are: the quantizer rounds them.

    Args:
        model: functional or Sequential model with one input, without batch normalisation (`kzoo.fold_batch_norm`). It
            is left as it is.
        calibration: images (n, height, width, channels) as the model takes them: 100 or more of the training set.
        precision: precision of the file to come, whose integer kernels `PRECISIONS` tells.
        per_channel: whether the file has a scale for each output channel of a kernel, else one for the kernel.

    Returns:
        A new model with the same layers, all linear ones with a bias. Layers that are called more than once, and
        those inside other layers, stay as they are. It takes half as many passes over the calibration images as
        there are linear layers.

    Raises:
        InvalidValueError: another precision; images of the wrong shape or number; a model with several inputs, with
            batch normalisation, with a model inside, or that is not functional.

    Example:
        >>> corrected = correct_bias(kzoo.fold_batch_norm(model), images[:200], "int4")
    """
    check_choice("precision", precision, INTEGER)
    model, graph = as_functional(model), read_graph(model)
    check_folded(model, "bias correction")
    images = _check_images(model, calibration)
    once = {name for name, calls in graph.calls.items() if len(calls) == 1}
    linear = [layer.name for layer in model.layers if type(layer) in CHANNEL_AXES and layer.name in once]

    def clone(layer):
        if layer.name not in linear:
            return copy_layer(layer)
        return type(layer).from_config(layer.get_config() | {"use_bias": True})

    def copy():
        made = keras.models.clone_model(model, clone_function=clone)
        for layer in model.layers:
            if layer.weights:
                target, weights = made.get_layer(layer.name), layer.get_weights()
                missing = [np.zeros(weight.shape) for weight in target.weights[len(weights) :]]
                target.set_weights(weights + missing)
        return made

    corrected, rounded = copy(), copy()
    for layer in rounded.layers:
        if type(layer) in CHANNEL_AXES and (bits := kernel_bits(layer, precision)):
            least_error = PRECISIONS[precision].least_error and bits == 4
            layer.kernel.assign(round_kernel(layer, bits, per_channel, least_error))
    expected = _mean_outputs(model, linear, images)
    for name in linear:
        difference = _mean_outputs(rounded, [name], images)[name] - expected[name]
        for target in (rounded, corrected):
            target.get_layer(name).bias.assign_sub(difference)
    return corrected


def _mean_outputs(model: keras.Model, names: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
    """Mean of each output channel (channels,) of linear layers before their activations, over images and pixels."""
    layers = {name: _without_activation(model.get_layer(name)) for name in names}
    reader = keras.Model(model.input, {name: model.get_layer(name).input for name in names})
    sums: dict[str, np.ndarray] = {name: np.zeros(()) for name in names}
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        for name, x in reader(batch, training=False).items():
            y = keras.ops.convert_to_numpy(layers[name](x)).astype("float64")
            sums[name] = sums[name] + y.reshape(len(batch), -1, y.shape[-1]).mean(axis=1).sum(axis=0)
    return {name: total / len(images) for name, total in sums.items()}


def _without_activation(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A linear layer by itself, with the same weights."""
    linear = type(layer).from_config(layer.get_config() | {"activation": None})
    linear.build(layer.input.shape)
    linear.set_weights(layer.get_weights())
    return linear


def _check_images(model: keras.Model, calibration: np.ndarray) -> np.ndarray:
    if len(model.inputs) != 1:
        raise InvalidValueError(f"{model.name} has {len(model.inputs)} inputs; bias correction takes a model with one")
    images, shape = np.asarray(calibration), tuple(model.inputs[0].shape[1:])
    fits = images.ndim == len(shape) + 1 and all(
        want in (None, have) for want, have in zip(shape, images.shape[1:], strict=True)
    )
    if not fits or len(images) == 0:
        wanted = ", ".join(map(str, ("n", *shape)))
        raise InvalidValueError(f"calibration has shape {images.shape}; images of shape ({wanted}) are needed")
    if not np.isfinite(images).all():
        raise InvalidValueError("calibration holds NaN or infinite pixels")
    return images.astype("float32")
