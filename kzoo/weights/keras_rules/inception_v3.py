"""Names of keras.applications' Inception v3, whose layers are numbered in the order in which they were made."""

import re
from collections.abc import Collection

import keras

_STEM = re.compile(r"stem_(conv|bn)(\d)")
_MIXED = re.compile(r"mixed(\d\w)_branch([^_]+|_pool)_(conv|bn)(\d?[ab]?)")
_BRANCHES = ("1x1", "5x5", "3x3", "3x3dbl", "7x7", "7x7dbl", "7x7x3", "_pool")  # the order within every module
_NUMBERED = {"conv": re.compile(r"conv2d(?:_(\d+))?"), "bn": re.compile(r"batch_normalization(?:_(\d+))?")}


def layer_names(model: keras.Model, in_file: Collection[str]) -> dict[str, str]:
    """Layer of the zoo -> layer of the file.

    The numbers of a session's first model start at none, those of a later one anywhere: only their order counts.
    """
    names = {"head_dense": "predictions"}
    for kind, pattern in _NUMBERED.items():
        matches = filter(None, (pattern.fullmatch(name) for name in in_file))
        theirs = sorted(matches, key=lambda match: int(match[1] or 0))
        mine = sorted((order, name) for name, (each, order) in _orders(model).items() if each == kind)
        names |= {name: match[0] for (_, name), match in zip(mine, theirs, strict=False)}
    return names


def _orders(model: keras.Model) -> dict[str, tuple[str, tuple]]:
    """Layer of the zoo -> its kind, and what sorts the layers of this kind as keras.applications makes them."""
    orders = {}
    for layer in model.layers:
        if match := _STEM.fullmatch(layer.name):
            orders[layer.name] = match[1], ("", 0, match[2])
        elif match := _MIXED.fullmatch(layer.name):
            module, branch, kind, index = match.groups()
            orders[layer.name] = kind, (module, _BRANCHES.index(branch), index)
    return orders


def reads_blue_first(model: keras.Model) -> bool:
    """The weights come from TensorFlow."""
    return False
