"""Strict loading of weights: everything fits, or nothing is touched."""

import logging
import os
from pathlib import Path

import keras
import numpy as np

from kzoo.errors import WeightsError, check_choice
from kzoo.layers.checks import check_flag
from kzoo.models.backbone import backbone
from kzoo.models.blocks import pixel_scale_and_offset
from kzoo.registry import Entry
from kzoo.taps import tap_names
from kzoo.weights.fetch import fetch_hub
from kzoo.weights.files import find, is_torch, open_keras_weights, read_torch
from kzoo.weights.keras_names import KerasNames
from kzoo.weights.loaded import WeightsReport
from kzoo.weights.match import Names, match
from kzoo.weights.specs import HUB, find_spec, preprocessing_of
from kzoo.weights.torch_names import TorchNames

_log = logging.getLogger("kzoo")


def load_weights(
    model: keras.Model,
    source: str | Path,
    *,
    strict: bool = True,
    head: str = "keep",
    new_attention: bool = False,
) -> WeightsReport:
    """Loads weights into a model of the zoo. On an error the model is as it was.

    A model built with `include_top=False` takes files with a classifier too, and one built without auxiliary heads
    takes files with them. Three things are adapted, and the report tells where: the first kernel to images of
    another number of channels (summed for one, repeated and rescaled for more than three), position tables to
    another size of images or windows, and what keras.applications has in another order: blue before red, and the
    map that VGG flattens channels last.

    Args:
        model: model that `kzoo.build` gave.
        source: `"hf://owner/name"`, with `@revision` if it is not the newest, or the path of one of these:
            a `.safetensors` file with torch names and layouts, the `.safetensors.index.json` of several, or a
            folder that holds `model.safetensors` or its index; a `.weights.h5`, `.h5` or `.keras` file that Keras
            wrote, of this model or of the keras.applications model that it equals.
        strict: whether a variable without a weight, or a weight without a variable, is an error.
        head: `"keep"` loads the classifier; `"initialise"` leaves it random, for another number of classes;
            `"if_fits"` loads it unless its shape differs or the file has none.
        new_attention: whether a file of the same network without its attention (SE, CBAM, channel, spatial and
            residual attention, non-local blocks) is one that fits. If it has no weight of any, the attention starts
            as nothing: the model computes what the file's network does, and weights around the gates, which start at
            one half, make up for them (see `kzoo.weights.new_attention`). `kzoo.build` loads so.

    Returns:
        A `WeightsReport`.

    Raises:
        WeightsError: the file is absent, unreadable, a pickle, or does not fit.

    Example:
        >>> model = kzoo.build("cifar_resnet20")
        >>> print(kzoo.load_weights(model, "cifar_resnet20.safetensors"))
        cifar_resnet20.safetensors: 97 loaded, 0 adapted, 0 initialised, 0 missing, 0 unexpected
    """
    report, arrays, _ = _match(model, source, strict, head, new_attention)
    _assign(model, arrays)
    return report


def _match(
    model: keras.Model, source: str | Path, strict: bool, head: str, new_attention: bool
) -> tuple[WeightsReport, dict, Names]:
    """The report, variable path -> array, and the file's names; nothing is assigned yet."""
    check_choice("head", head, ("keep", "initialise", "if_fits"))
    check_flag("new_attention", new_attention)
    if not isinstance(model, keras.Model):
        raise WeightsError(f"model={model!r} is no keras.Model; pass what kzoo.build gives")
    if not isinstance(source, (str, os.PathLike)):
        raise WeightsError(f"source={source!r} is no path and no address; pass a path or 'hf://owner/name'")
    text = str(source)
    path = find(fetch_hub(text.removeprefix(HUB)) if text.startswith(HUB) else Path(source))
    _check_preprocessing(model, path)
    report = WeightsReport(source=text)
    names: Names
    if is_torch(path):
        names = TorchNames(read_torch(path), model)
        return report, match(model, path, names, report, strict, head, new_attention), names
    with open_keras_weights(path) as values:
        names = KerasNames(values, model)
        return report, match(model, path, names, report, strict, head, new_attention), names


def _assign(model: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    for variable in model.weights:
        if variable.path in arrays:
            variable.assign(arrays[variable.path])


def load_backbone(model: keras.Model, entry: Entry, source: str | Path) -> WeightsReport:
    """Loads weights of a classifier into the backbone of a model.

    Args:
        model: model on the backbone.
        entry: entry of the backbone in the registry.
        source: as in `load_weights`. Norms of taps, which classifiers have not, keep their initial weights; stages
            that the model leaves out are left out of the file too.

    Raises:
        WeightsError: as `load_weights`.
    """
    trunk = backbone(model, entry.name)
    report, arrays, names = _match(trunk, source, strict=False, head="keep", new_attention=True)
    report.initialised = [path for path in report.missing if "_tap_norm/" in path]
    report.missing = [path for path in report.missing if path not in report.initialised]
    if report.unexpected and entry.config.total_stride > 2 ** int(tap_names(trunk)[-1][1:]):
        inputs = keras.Input(trunk.input.shape[1:])  # the stages that are left out, too
        whole = keras.Model(inputs, entry.features(inputs, entry.config), name=entry.name)
        known = names.belonging_to(whole)
        report.unexpected = [name for name in report.unexpected if name not in known]
    report.refuse_misfits(f"{entry.name} in {model.name}", [], strict=True)
    _assign(trunk, arrays)
    return report


def _check_preprocessing(model: keras.Model, path: Path) -> None:
    """Refuses a known checkpoint for images that are normalised in another way than the model does; warns where the
    file's names suggest it.
    """
    wanted = preprocessing_of(model.name, path)
    layer = next((layer for layer in model.layers if layer.name == "preprocessing"), None)
    if wanted is None or not isinstance(layer, keras.layers.Rescaling):
        return
    scale, offset = pixel_scale_and_offset(wanted, model.input.shape[-1])
    if np.allclose(layer.scale, scale) and np.allclose(layer.offset, offset):
        return
    difference = f"weights for images with the {wanted!r} normalisation, and {model.name} was built with another"
    advice = "give the weights to kzoo.build, which then normalises as they want it"
    if find_spec(path):
        raise WeightsError(f"{path} has {difference}; {advice}")
    _log.warning("%s seems to have %s; if so, %s", path, difference, advice)
