"""The family of a model, which says how others name its layers."""

import weakref

import keras

from kzoo.errors import UnknownNameError
from kzoo.registry import lookup
from kzoo.taps import tap_names
from kzoo.weights.torch_rules import LAYER_NAMES

_FOUND: weakref.WeakKeyDictionary[keras.Model, str | None] = weakref.WeakKeyDictionary()


def family_of(model: keras.Model) -> str | None:
    """The family of the zoo that a model belongs to, None for a user's own.

    It is that of its name, if the zoo has that. A model that was built with a name of its own, which is all that a
    saved file keeps, shows it by its taps and layers: the rules of the family know most of them, and more than those
    of others do.
    """
    try:
        return lookup(model.name).family
    except UnknownNameError:
        if model not in _FOUND:
            _FOUND[model] = _by_layers(model)
        return _FOUND[model]


def _by_layers(model: keras.Model) -> str | None:
    if not tap_names(model):
        return None
    paths = dict.fromkeys(variable.path.rpartition("/")[0] for variable in model.weights)
    known = {family: sum(map(bool, (names(path, model) for path in paths))) for family, names in LAYER_NAMES.items()}
    best = max(known, key=known.__getitem__)
    return best if known[best] > len(paths) / 2 else None
