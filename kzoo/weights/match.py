"""Finding the array of every variable of a model, and deciding whether all of it fits."""

from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from kzoo.weights.adapt import adapt
from kzoo.weights.files import Stored, blank, check_kind, read_values
from kzoo.weights.loaded import HEADS, WeightsReport
from kzoo.weights.new_attention import attention_layers, start_as_nothing


class Names(Protocol):
    """A file's arrays by name, and which of them belongs to a variable: `TorchNames` and `KerasNames`."""

    arrays: dict[str, Stored]

    def belonging_to(self, model: keras.Model) -> set[str]: ...

    def find(self, variable: keras.Variable) -> str | None: ...

    def convert(self, variable: keras.Variable, name: str, array: np.ndarray) -> tuple[np.ndarray, list[str]]: ...

    def of_absent_head(self) -> list[str]: ...

    def of_absent_auxiliary(self) -> list[str]: ...


def match(
    model: keras.Model,
    path: Path,
    names: Names,
    report: WeightsReport,
    strict: bool,
    head: str,
    new_attention: bool,
) -> dict[str, np.ndarray]:
    """Fills in the report; returns variable path -> array in the variable's shape.

    Names, shapes and types decide first; only then are numbers read, and only those that a variable takes.

    Raises:
        WeightsError: the arrays do not fit, or are no finite floating-point numbers.
    """
    for stored, array in names.arrays.items():
        check_kind(path, stored, array)
    found = {variable.path: names.find(variable) for variable in model.weights}
    random = _random_layers(model, names, found, head)
    new = _new_variables(model, found) if new_attention else set()
    taken, wrong = [], []
    for variable in model.weights:
        name = found[variable.path]
        if _layer(variable) in random:
            report.initialised.append(variable.path)
        elif variable.path in new:
            report.new.append(variable.path)
        elif name is None:
            report.missing.append(variable.path)
        else:
            array, notes = _fit(variable, name, blank(names.arrays[name]), names, model)
            if array.shape != tuple(variable.shape):
                layout, whose = ("", "the model") if name == variable.path else (" in Keras layout", variable.path)
                wrong.append(f"{name} has shape {array.shape}{layout}, {whose} {tuple(variable.shape)}")
                continue
            taken.append((variable, name))
            report.loaded[variable.path] = name
            if notes:
                report.adapted[variable.path] = "; ".join(notes)
    used = {*found.values(), *names.of_absent_auxiliary()}
    if random or not any(layer.name in HEADS for layer in model.layers):
        used.update(names.of_absent_head())
    report.unexpected = [name for name in names.arrays if name not in used]
    report.refuse_misfits(model.name, wrong, strict)
    matched = {}
    for variable, name in taken:
        array, _ = _fit(variable, name, read_values(path, name, names.arrays[name]), names, model)
        matched[variable.path] = array.astype("float32", copy=False)
    if new:
        start_as_nothing(model, matched)
    return matched


def _new_variables(model: keras.Model, found: dict[str, str | None]) -> set[str]:
    """The variables of a model's attention, if the file has none of them."""
    variables = {variable.path for layer in attention_layers(model) for variable in layer.weights}
    return set() if any(found[path] for path in variables) else variables


def _fit(
    variable: keras.Variable, name: str, array: np.ndarray, names: Names, model: keras.Model
) -> tuple[np.ndarray, list[str]]:
    """The array `name` in its variable's layout and, where that can be, shape; and what was done to it."""
    array, notes = names.convert(variable, name, array)
    if array.shape != tuple(variable.shape) and (adapted := adapt(variable, array, model)):
        array, note = adapted
        notes = [*notes, note]
    return array, notes


def _random_layers(model: keras.Model, names: Names, found: dict[str, str | None], head: str) -> set[str]:
    """The classifiers, those of auxiliary heads too, that keep their random weights."""
    classifiers: dict[str, list[keras.Variable]] = {}
    for variable in model.weights:
        if _layer(variable).endswith(HEADS):
            classifiers.setdefault(_layer(variable), []).append(variable)
    if head != "if_fits":
        return set(classifiers) if head == "initialise" else set()

    def fits(variables: list[keras.Variable]) -> bool:
        held = [(variable, name) for variable in variables if (name := found[variable.path])]
        arrays = ((variable, names.convert(variable, name, blank(names.arrays[name]))[0]) for variable, name in held)
        return bool(held) and all(array.shape == tuple(variable.shape) for variable, array in arrays)

    return {layer for layer, variables in classifiers.items() if not fits(variables)}


def _layer(variable: keras.Variable) -> str:
    return variable.path.rpartition("/")[0]
