"""Taps: names for the feature maps of a model.

The last tensor at stride 2^n passes through an identity layer called `p{n}`, a feature pyramid's map through
`fpn_p{n}`. The name survives saving, folding and cloning, where a Python attribute would not.
"""

import re
from collections.abc import Sequence

import keras

from kzoo.errors import InvalidValueError, UnknownNameError

TAP = re.compile(r"p\d+")
_ANY_TAP = re.compile(r"(?:fpn_)?p(\d+)")


def mark(x, level: int):
    """Names the feature map `x` as the tap of stride 2^level."""
    return keras.layers.Identity(name=f"p{level}")(x)


def tap_names(model: keras.Model) -> list[str]:
    """The taps of `model`, finest first; those of a feature pyramid follow the backbone's.

    >>> tap_names(kzoo.build("cifar_resnet20"))
    ['p0', 'p1', 'p2']
    """
    taps = [tap for layer in model.layers if (tap := _ANY_TAP.fullmatch(layer.name))]
    return [tap[0] for tap in sorted(taps, key=lambda tap: (not TAP.fullmatch(tap[0]), int(tap[1])))]


def pyramid(model: keras.Model, levels: Sequence[str]) -> keras.Model:
    """A model from the same input to the feature maps at `levels`, sharing the weights of `model`.

    Args:
        model: any model with taps.
        levels: tap names such as `["p3", "p4", "p5"]`; `p{n}` and `fpn_p{n}` have stride 2^n.

    Returns:
        A `keras.Model` whose output is a dict from level to map.

    Raises:
        UnknownNameError: the model has no such tap.

    Example:
        >>> maps = pyramid(kzoo.build("resnet18"), ["p4", "p5"])(images)
        >>> maps["p5"].shape
        TensorShape([8, 7, 7, 512])
    """
    known = tap_names(model)
    if not isinstance(levels, Sequence) or isinstance(levels, str) or not levels:
        raise InvalidValueError(f"levels={levels!r} must be a list of tap names among {', '.join(known)}")
    for level in levels:
        if level not in known:
            raise UnknownNameError(f"{model.name} has no tap {level!r}; it has {', '.join(known) or 'none'}")
    outputs = {level: model.get_layer(level).output for level in levels}
    return keras.Model(model.input, outputs, name=f"{model.name}_pyramid")
