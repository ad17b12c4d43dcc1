"""How files that Keras wrote, for the zoo or for keras.applications, name and lay out the zoo's weights."""

from collections import Counter

import h5py
import keras
import numpy as np

from kzoo.weights.adapt import first_kernel
from kzoo.weights.family import family_of
from kzoo.weights.files import Place
from kzoo.weights.keras_rules import RULES
from kzoo.weights.loaded import DENSE_HEAD

AUXILIARY_LAYER = "auxiliary"  # what the names of auxiliary heads' layers begin with
HEAD_LAYER = "head_"


class KerasNames:
    """The arrays of a file that Keras wrote, as a model of the zoo sees them.

    A file none of whose layers has the name of one of the model's is taken to be keras.applications'.

    Attributes:
        arrays: name -> array, still in its file.
    """

    def __init__(self, values: dict[Place, h5py.Dataset], model: keras.Model):
        layers = dict.fromkeys(layer for layer, _ in values)
        own = {layer.name for layer in model.layers}
        foreign = not any(layer.partition("/")[0] in own for layer in layers)
        rules = RULES.get(family_of(model) or "") if foreign else None
        self._model, self._values = model, values
        self._layer_names = rules.layer_names(model, layers) if rules else {layer: layer for layer in layers}
        self._blue_first = first_kernel(model) if rules and rules.reads_blue_first(model) else None
        self._map_shape = model.get_layer("head_permute").input.shape[1:] if rules and "head_permute" in own else None
        places = by_position(model)
        names = {(layer, index): f"{layer} (weight {index})" for layer, index in values}
        if not foreign:
            names |= {place: variable.path for place, variable in places if place in values}
        self._found = {
            variable.path: names.get((self._layer_names.get(layer, ""), index)) for (layer, index), variable in places
        }
        self._array_names = names
        self._layers = {names[layer, index]: layer for layer, index in values}
        self.arrays = {names[place]: array for place, array in values.items()}

    def belonging_to(self, model: keras.Model) -> set[str]:
        """Names that belong to variables of another model."""
        others = KerasNames(self._values, model)
        found = {others.find(variable) for variable in model.weights}
        return {self._array_names[place] for place, name in others._array_names.items() if name in found}

    def find(self, variable: keras.Variable) -> str | None:
        """The name of a variable's array, None where the file has none."""
        return self._found[variable.path]

    def convert(self, variable: keras.Variable, name: str, array: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """The array `name` in the layout of `variable`, and what was done to it."""
        if variable.path == self._blue_first and array.ndim == 4 and array.shape[2] == 3:
            return array[:, :, ::-1], ["blue, green, red to red, green, blue"]
        if self._map_shape and variable.path == f"{DENSE_HEAD}/kernel" and array.shape == tuple(variable.shape):
            by_pixel = array.reshape(*self._map_shape, -1)  # the zoo flattens in torch's order
            return by_pixel.transpose(2, 0, 1, 3).reshape(array.shape), ["map flattened channels first"]
        return array, []

    def of_absent_head(self) -> list[str]:
        """Names that belong to layers of a head which the model was built without."""
        return self._of_absent(HEAD_LAYER)

    def of_absent_auxiliary(self) -> list[str]:
        """Names that belong to auxiliary heads which the model was built without."""
        return self._of_absent(AUXILIARY_LAYER)

    def _of_absent(self, prefix: str) -> list[str]:
        present = {layer.name for layer in self._model.layers}
        absent = {
            theirs
            for mine, theirs in self._layer_names.items()
            if mine.startswith(prefix) and mine.partition("/")[0] not in present
        }
        return [name for name, layer in self._layers.items() if layer in absent]


def by_position(model: keras.Model) -> list[tuple[Place, keras.Variable]]:
    """Every variable with its layer's path and its place among that layer's own variables."""
    counts: Counter[str] = Counter()
    places = []
    for variable in model.weights:
        layer = variable.path.rpartition("/")[0]
        places.append(((layer, counts[layer]), variable))
        counts[layer] += 1
    return places
