"""Names of torchvision's and timm's Inception v3."""

import re

import keras

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_STEM_LAYER = re.compile(r"stem_(conv|bn)([1-5])")
_MIXED_LAYER = re.compile(r"mixed(\d\w)_(branch\w+?)_(conv|bn)(\d?[ab]?)")
_AUXILIARY_LAYER = re.compile(r"auxiliary1_(conv|bn)([12])")
_DENSE = {"auxiliary1_head_dense": "AuxLogits.fc", "head_dense": "fc"}


def layer_names(layer: str, model: keras.Model) -> tuple[str, ...]:
    """The name of a layer of the zoo; empty where it is not known.

    >>> layer_names("mixed5b_branch5x5_conv2", model)
    ('Mixed_5b.branch5x5_2.conv',)
    """
    if layer in _DENSE:
        return (_DENSE[layer],)
    if match := _STEM_LAYER.fullmatch(layer):
        kind, index = match.groups()
        return (f"{_STEM[int(index) - 1]}.{kind}",)
    if match := _MIXED_LAYER.fullmatch(layer):
        module, branch, kind, index = match.groups()
        return (f"Mixed_{module}.{branch}{'_' * bool(index)}{index}.{kind}",)
    if match := _AUXILIARY_LAYER.fullmatch(layer):
        kind, index = match.groups()
        return (f"AuxLogits.conv{int(index) - 1}.{kind}",)
    return ()
