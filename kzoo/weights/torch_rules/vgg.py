"""Names of timm's and torchvision's VGGs, whose convolutions, norms, ReLUs and pools are numbered in one row."""

import re

import keras

_FEATURE = re.compile(r"stage\d+_(conv|bn|relu|pool)\d*")
_HEAD = {
    "head_fc1": ("pre_logits.fc1", "classifier.0"),
    "head_fc2": ("pre_logits.fc2", "classifier.3"),
    "head_dense": ("head.fc", "classifier.6"),
}


def layer_names(layer: str, model: keras.Model) -> tuple[str, ...]:
    """Names of a layer of the zoo, timm's first; empty where it is not known.

    `head_dense` of a model without a head stands for the whole head, which files have and the model passes over.
    """
    layers = [each.name for each in model.layers]
    if layer in _HEAD:
        return _HEAD[layer] if layer in layers else sum(_HEAD.values(), ())
    row = [name for name in layers if _FEATURE.fullmatch(name)]
    return (f"features.{row.index(layer)}",) if layer in row else ()
