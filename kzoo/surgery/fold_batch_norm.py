"""Folding batch normalisation into the linear layers around it."""

import keras

from kzoo.graph import has_graph
from kzoo.surgery.affine import Affine, norm_scale_and_offset
from kzoo.surgery.folding import Rule, fold, plan_rule
from kzoo.surgery.level import Level, Refused
from kzoo.surgery.parting import part_shared
from kzoo.surgery.plan import FoldPlan


def plan_folding(model: keras.Model) -> FoldPlan:
    """Decides for every batch normalisation of `model` whether it can be folded exactly, without changing it.

    Folds into the layer before: a convolution of any kind (grouped, dilated, depthwise, separable, transposed, in
    1 to 3 dimensions), a Dense layer, or a layer with a method `absorb`, if nothing else reads its output and it has
    no activation. Several in a row become one. A layer some of whose calls have norms of their own gets a copy for
    each of these first, `NAME_call1`, .... A layer that is shared folds if both are called equally often, always
    one behind the other. In between may stand what commutes with a scale and an offset for each channel: Identity,
    dropout, average pooling, upsampling, cropping; zero padding if the offset is 0; but no tap.

    What has no such layer before it folds into the one behind, under the same conditions, if that reads no padded
    zeros. Images may be padded: one more channel then carries the offset (see `fold_preprocessing`).

    Models inside are planned too, each by itself.

    Raises:
        InvalidValueError: the model is not functional.
    """
    return plan_rule(Level(part_shared(model, read_norm)), RULE)


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Returns an equal model for inference whose batch normalisations are folded into the layers around them.

    `gamma * (W x + b - mean) / sqrt(var + eps) + beta` is `W' x + b'` with `W' = W * s`,
    `b' = (b - mean) * s + beta` and `s = gamma / sqrt(var + eps)` (arXiv:1502.03167); and `W (s x + o) + b` is
    `(W s) x + (b + W o)`. Layers that hold a batch normalisation of their own, such as CBAM, fold it themselves.
    What cannot be folded exactly stays, and is logged with its reason; `kzoo.surgery.plan_folding` lists it.

    Args:
        model: a functional or Sequential model, which may hold others. It and its weights are left as they are.

    Returns:
        A new functional model with the same layer names but for the normalisations that went.

    Raises:
        InvalidValueError: the model is not functional, or holds a layer that cannot be copied.

    Example:
        >>> folded = kzoo.fold_batch_norm(kzoo.build("resnet50"))
        >>> [layer for layer in folded.layers if isinstance(layer, keras.layers.BatchNormalization)]
        []
    """
    return fold(part_shared(model, read_norm), RULE)


def read_norm(level: Level, name: str) -> Affine | None:
    """What a batch normalisation computes at inference, None for other layers.

    Raises:
        Refused: it does not scale and shift the channels, or its name is needed.
    """
    layer = level.operations[name]
    if not isinstance(layer, keras.layers.BatchNormalization):
        holds = isinstance(layer, keras.layers.Layer) and any(v.name == "moving_variance" for v in layer.variables)
        if holds and not has_graph(layer):
            raise Refused(f"it is {level.kind(name)}, which holds batch normalisation that only itself could fold")
        return None
    if type(layer) is not keras.layers.BatchNormalization:
        raise Refused(f"it is a {type(layer).__name__}, which may compute something else")
    if level.trains(name):
        raise Refused("it is called in training mode")
    if name in level.taps:
        raise Refused("it is a tap, whose name has to stay")
    if any(call.masks for call in level.graph.calls[name]):
        raise Refused("it is given a Keras mask, which it passes on")
    shape = level.input_shape(name)
    if layer.axis not in (-1, len(shape) - 1):
        raise Refused(f"it normalises axis {layer.axis}, not the channels")
    return Affine.of(*norm_scale_and_offset(layer), shape[-1])


RULE = Rule(read_norm, norms=True, constant=1.0)  # normalised maps have values around one
