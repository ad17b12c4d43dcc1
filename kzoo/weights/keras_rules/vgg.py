"""Names of keras.applications' VGG16 and VGG19."""

import re
from collections.abc import Collection

import keras

_CONV = re.compile(r"stage(\d)_conv(\d)")
_HEAD = {"head_fc1": "fc1", "head_fc2": "fc2", "head_dense": "predictions"}


def layer_names(model: keras.Model, in_file: Collection[str]) -> dict[str, str]:
    """Layer of the zoo -> layer of the file."""
    matches = (_CONV.fullmatch(layer.name) for layer in model.layers)
    return {match[0]: f"block{match[1]}_conv{match[2]}" for match in matches if match} | _HEAD


def reads_blue_first(model: keras.Model) -> bool:
    """The authors' weights come from Caffe."""
    return True
