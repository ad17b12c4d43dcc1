"""Names of keras.applications' ResNet and ResNetV2."""

import re
from collections.abc import Collection

import keras

_LAYER = re.compile(r"stage(\d)_block(\d+)_(shortcut_)?(conv|bn)(\d?)")
_OUTSIDE = {"stem_conv": "conv1_conv", "stem_bn": "conv1_bn", "final_bn": "post_bn"}
_CLASSIFIERS = ("predictions", "probs")  # now, and when the public files were written


def layer_names(model: keras.Model, in_file: Collection[str]) -> dict[str, str]:
    """Layer of the zoo -> layer of the file."""
    names = {"head_dense": next((name for name in _CLASSIFIERS if name in in_file), _CLASSIFIERS[0])} | _OUTSIDE
    preactivation = _is_preactivation(model)
    for match in filter(None, (_LAYER.fullmatch(layer.name) for layer in model.layers)):
        stage, block, _, kind, index = match.groups()
        number = int(index or 0)  # a shortcut's are 0
        part = f"{number}_{kind}"
        if preactivation and kind == "bn":
            part = f"{number - 1}_bn" if number > 1 else "preact_bn"
        names[match[0]] = f"conv{int(stage) + 1}_block{block}_{part}"
    return names


def reads_blue_first(model: keras.Model) -> bool:
    """The first version's weights come from Caffe, the second's from TensorFlow."""
    return not _is_preactivation(model)


def _is_preactivation(model: keras.Model) -> bool:
    return any(layer.name == "final_bn" for layer in model.layers)
