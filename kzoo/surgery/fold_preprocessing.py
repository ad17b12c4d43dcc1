"""Folding pixel normalisation into the first convolution."""

from typing import Any

import keras
import numpy as np

from kzoo.arithmetic import operation_scale_and_offset
from kzoo.surgery.affine import Affine, to_numpy
from kzoo.surgery.folding import Rule, fold, plan_rule
from kzoo.surgery.level import Level, Refused
from kzoo.surgery.plan import FoldPlan

_REVERSED = slice(None, None, -1)


def plan_preprocessing(model: keras.Model) -> FoldPlan:
    """Decides what `fold_preprocessing` does, without changing the model.

    Raises:
        InvalidValueError: the model is not functional.
    """
    return plan_rule(Level(model), RULE)


def fold_preprocessing(model: keras.Model) -> keras.Model:
    """Returns an equal model whose first convolution reads the pixels as they are.

    Folds Rescaling and Normalization layers, sums, differences, products and quotients with constants, and
    `x[..., ::-1]`, if they are all that stands between the image and the first linear layer, but for layers that
    commute with them: `W (s x + o) + b` is `(W s) x + (b + W o)`.

    Where that layer pads, zeros are to be added to the *normalised* image. Then a 1x1 convolution
    `preprocessing_constant` adds a fourth channel, 255 - red. The kernel of the first convolution gets a slice
    `sum over channels(W o) / 255` for it, which is added to that of red too. Both channels together are 255 inside
    and 0 outside, so that padding is exact. They stay within 0 to 255, the scale of pixels in 8 bits.

    Args:
        model: a functional or Sequential model. It and its weights are left as they are.

    Returns:
        A new functional model with the same layer names but for those that went. Of a layer called `preprocessing`
        an `Identity` stays: it tells `kzoo.export` that the model eats pixels of 0 to 255.

    Raises:
        InvalidValueError: the model is not functional, or holds a layer that cannot be copied.

    Example:
        >>> folded = kzoo.surgery.fold_preprocessing(kzoo.build("vgg16"))
        >>> [layer.name for layer in folded.layers[:4]]
        ['image', 'preprocessing_constant', 'preprocessing', 'stage1_conv1']
    """
    return fold(model, RULE)


def _read_pixels(level: Level, name: str) -> Affine | None:
    """What a layer or plain operation between the image and the first weights computes, if it scales and shifts."""
    if not _reads_image(level, name):
        return None
    call = level.graph.calls[name][0]
    operation, channels = level.operations[name], call.input_shapes[0][-1]
    values: Affine | tuple[Any, Any] | None
    if type(operation) is keras.layers.Rescaling:
        values = operation.scale, operation.offset
    elif type(operation) is keras.layers.Normalization:
        values = _normalization(operation, len(call.input_shapes[0]))
    elif isinstance(operation, keras.layers.Layer):
        return None
    elif type(operation).__name__ == "GetItem":
        values = _reversal(call.args[1], channels)
    else:
        values = operation_scale_and_offset(operation, call.args)
    if values is None:
        return None
    level.check_no_mask(name)
    if isinstance(values, Affine):
        return values
    along_last = all(np.size(value) == np.shape(value)[-1] for value in values if np.ndim(value))
    if channels is None or not along_last or any(np.size(value) not in (1, channels) for value in values):
        raise Refused("it does not give each channel one number")
    if "float" not in call.input_dtypes[0]:
        raise Refused(f"it reads {call.input_dtypes[0]} pixels, and a linear layer needs floating point")
    scale, offset = values
    return Affine.of(scale, offset, channels)


def _reads_image(level: Level, name: str) -> bool:
    """Whether nothing with weights stands between an input and the layer."""
    while name in level.graph.calls:
        operation = level.operations[name]
        if getattr(operation, "weights", []) and type(operation) is not keras.layers.Normalization:
            return False
        sources = {read for call in level.graph.calls[name] for read in call.sources}
        if len(sources) != 1:
            return False
        name = sources.pop()[0]
    return True


def _normalization(layer: keras.layers.Normalization, rank: int) -> tuple[np.ndarray, np.ndarray]:
    if layer.axis not in ((), (-1,), (rank - 1,)):
        raise Refused(f"it normalises axis {layer.axis}, not the channels")
    mean, variance = to_numpy(layer.mean), to_numpy(layer.variance)
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    return (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)


def _reversal(key, channels: int | None) -> Affine | None:
    """`x[..., ::-1]` reverses the channels."""
    key = keras.saving.deserialize_keras_object(key)
    if not isinstance(key, (tuple, list)) or list(key) != [..., _REVERSED] or channels is None:
        return None
    return Affine(np.ones(channels), np.zeros(channels), np.arange(channels)[::-1])


RULE = Rule(_read_pixels, norms=False, constant=255.0, marks=("preprocessing",))
