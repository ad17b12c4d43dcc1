"""Strict loading of weights: everything fits, or nothing is touched."""

import json
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import keras
import numpy as np
import safetensors
import safetensors.numpy

from kzoo.errors import WeightsError, check_choice
from kzoo.weights.specs import HUB
from kzoo.weights.torch_names import AUXILIARY, IGNORED, PREFIXES, to_keras, torch_names, torch_shape

PICKLES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".pkl", ".pickle")
HEAD = "head_dense"
AUXILIARY_LAYER = "auxiliary"


@dataclass
class WeightsReport:
    """What `load_weights` did, by Keras variable path or by name in the file.

    Attributes:
        source: where the weights came from.
        loaded: variable path -> name in the file.
        adapted: variable path -> how its array was changed to fit, beyond the layout of the axes.
        initialised: variables that kept their random values on purpose.
        missing: variables that the file does not hold; empty unless `strict=False`.
        unexpected: names in the file that no variable took; empty unless `strict=False`.
    """

    source: str
    loaded: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    initialised: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = (
            f"{len(getattr(self, name))} {name}"
            for name in ("loaded", "adapted", "initialised", "missing", "unexpected")
        )
        return f"{self.source}: {', '.join(counts)}"


def load_weights(model: keras.Model, source: str | Path, *, strict: bool = True, head: str = "keep") -> WeightsReport:
    """Loads weights into a model of the zoo. On an error the model is as it was.

    A model built with `include_top=False` takes files with a classifier too, and one built without auxiliary heads
    takes files with them.

    Args:
        model: from `kzoo.build`.
        source: `"hf://owner/name"`, or the path of a `.safetensors` file with torch names and layouts, or of
            a `.weights.h5` or `.keras` file that Keras wrote for the same architecture.
        strict: whether a variable without a weight, or a weight without a variable, is an error.
        head: `"keep"` loads the classifier; `"initialise"` leaves it random, for another number of classes;
            `"if_fits"` loads it unless its shape differs.

    Returns:
        A `WeightsReport`.

    Raises:
        WeightsError: the file is absent, unreadable, a pickle, or does not fit.

    Example:
        >>> model = kzoo.build("cifar_resnet20")
        >>> print(kzoo.load_weights(model, "cifar_resnet20.safetensors"))
        cifar_resnet20.safetensors: 97 loaded, 0 adapted, 0 initialised, 0 missing, 0 unexpected
    """
    check_choice("head", head, ("keep", "initialise", "if_fits"))
    text = str(source)
    path = download(text) if text.startswith(HUB) else Path(source)
    if not path.is_file():
        raise WeightsError(f"no weights file at {path}; pass an existing path or 'hf://owner/name'")
    report = WeightsReport(source=text)
    if path.suffix in PICKLES:
        raise WeightsError(
            f"{path} is a pickle, which can run any code when it is opened; convert it where you trust it: "
            "python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('in.pth', "
            "weights_only=True), 'out.safetensors')\""
        )
    if path.suffix == ".safetensors":
        arrays = _match_torch(model, read_safetensors(path), report, strict, head)
    elif path.name.endswith((".weights.h5", ".keras")):
        arrays = _match_keras(model, path, report, strict, head)
    else:
        raise WeightsError(f"{path} has an unknown format; use .safetensors, .weights.h5 or .keras")
    for variable in model.weights:
        if variable.path in arrays:
            variable.assign(arrays[variable.path])
    return report


def download(source: str) -> Path:
    """Fetches `model.safetensors` of a hub repository, or finds it in the local cache.

    Raises:
        WeightsError: it cannot be had.
    """
    import huggingface_hub

    repository = source.removeprefix(HUB)
    try:
        return Path(huggingface_hub.hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # offline, absent, private, malformed: the hub has an exception for each
        raise WeightsError(
            f"could not fetch model.safetensors of {repository} from the Hugging Face Hub "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); download it elsewhere and pass its path"
        ) from error


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads every array of a safetensors file.

    Raises:
        WeightsError: the file is truncated or malformed, or an array is not floating-point.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path} is no readable safetensors file ({error}); fetch it again") from error
    arrays = {name: array for name, array in arrays.items() if not IGNORED.fullmatch(name)}
    for name, array in arrays.items():
        if not (np.issubdtype(array.dtype, np.floating) or array.dtype.name == "bfloat16"):
            raise WeightsError(f"{path}: {name} holds {array.dtype}, not floating-point weights")
        if not np.isfinite(array.astype("float32")).all():
            raise WeightsError(f"{path}: {name} holds NaN or infinite values")
    return arrays


def _match_torch(model, arrays: dict[str, np.ndarray], report: WeightsReport, strict: bool, head: str):
    """Finds the array of every variable; returns path -> array in Keras layout."""
    arrays = _strip_prefix(arrays)
    matched, wrong, used = {}, [], set()
    for variable in model.weights:
        names = torch_names(variable.path, model)
        name = next((name for name in names if name in arrays), None)
        shape = torch_shape(variable, arrays[name].shape) if name else None
        if _stays_random(variable, shape, head):
            report.initialised.append(variable.path)
            used.update(names)
        elif name is None:
            report.missing.append(variable.path)
        else:
            used.add(name)
            if shape != tuple(variable.shape):
                wrong.append(f"{name} has shape {shape} in Keras layout, {variable.path} {tuple(variable.shape)}")
                continue
            matched[variable.path] = to_keras(variable)(arrays[name])
            report.loaded[variable.path] = name
            if len(variable.shape) == 2 and arrays[name].ndim == 4:
                height, width = arrays[name].shape[2:]
                report.adapted[variable.path] = f"{height}×{width} convolution to dense"
    if not _has_head(model):
        used.update(name for kind in ("kernel", "bias") for name in torch_names(f"{HEAD}/{kind}", model))
    if not _has_auxiliary(model):
        used.update(name for name in arrays if AUXILIARY.fullmatch(name))
    report.unexpected = [name for name in arrays if name not in used]
    _judge(model, report, wrong, strict)
    return matched


def _has_head(model: keras.Model) -> bool:
    """Whether the model has a classifier; without one, a file's classifier is passed over."""
    return any(layer.name == HEAD for layer in model.layers)


def _has_auxiliary(model: keras.Model) -> bool:
    """Whether the model has auxiliary heads; without them, a file's are passed over."""
    return any(layer.name.startswith(AUXILIARY_LAYER) for layer in model.layers)


def _is_spare(layer: str, model: keras.Model) -> bool:
    """Whether a layer of a Keras file belongs to a head that the model was built without."""
    if layer.startswith(AUXILIARY_LAYER):
        return not _has_auxiliary(model)
    return layer.startswith("head_") and not _has_head(model)


def _stays_random(variable: keras.Variable, shape: tuple[int, ...] | None, head: str) -> bool:
    """Whether a classifier's weight is left alone, given the shape that the file has for it."""
    if not variable.path.rpartition("/")[0].endswith(HEAD):  # an auxiliary head's classifier too
        return False
    return head == "initialise" or (head == "if_fits" and shape is not None and shape != tuple(variable.shape))


def _strip_prefix(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes a prefix that a wrapper put before every name."""
    for prefix in PREFIXES:
        if arrays and all(name.startswith(prefix) for name in arrays):
            return {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays


def _match_keras(model, path: Path, report: WeightsReport, strict: bool, head: str):
    """Finds the array of every variable in a file that Keras wrote; returns path -> array."""
    try:
        values = read_keras(path) if path.suffix == ".keras" else read_weights_h5(path)
    except Exception as error:  # zip, JSON, HDF5 and Keras each raise their own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(f"{path} cannot be read ({reason[0]}); write it again") from error
    matched, wrong = {}, []
    for (layer, index), variable in _by_position(model):
        value = values.pop((layer, index), None)
        if _stays_random(variable, None if value is None else tuple(value.shape), head):
            report.initialised.append(variable.path)
        elif value is None:
            report.missing.append(variable.path)
        elif tuple(value.shape) != tuple(variable.shape):
            wrong.append(f"{variable.path} has shape {tuple(value.shape)}, the model {tuple(variable.shape)}")
        else:
            matched[variable.path] = value
            report.loaded[variable.path] = variable.path
    report.unexpected = [f"{layer} (weight {index})" for layer, index in values if not _is_spare(layer, model)]
    _judge(model, report, wrong, strict)
    return matched


def _by_position(model) -> list[tuple[tuple[str, int], keras.Variable]]:
    """Every variable with its layer's path and its place among that layer's own variables."""
    counts, places = Counter(), []
    for variable in model.weights:
        layer = variable.path.rpartition("/")[0]
        places.append(((layer, counts[layer]), variable))
        counts[layer] += 1
    return places


def read_keras(path: Path) -> dict[tuple[str, int], np.ndarray]:
    """Reads the weights of a whole model that Keras saved: (layer path, index in the layer) -> array."""
    with zipfile.ZipFile(path) as archive:
        json.loads(archive.read("config.json"))
    donor = keras.saving.load_model(path, compile=False)
    return {place: keras.ops.convert_to_numpy(variable) for place, variable in _by_position(donor)}


def read_weights_h5(path: Path) -> dict[tuple[str, int], np.ndarray]:
    """Reads what `model.save_weights` wrote: (layer path, index in the layer) -> array.

    Keras itself matches by type and order, and would leave a part of the file unread without a word; the layers'
    names stand beside the arrays.
    """
    values = {}
    with h5py.File(path) as file:

        def visit(place: str, item) -> None:
            if not isinstance(item, h5py.Dataset) or not place.startswith("layers/"):
                return  # a group, or the state of an optimizer
            # layers/TYPE_OF_LAYER/TYPE_OF_A_LAYER_IN_IT/.../vars/INDEX
            *groups, _, index = place.split("/")
            parents = ("/".join(groups[:depth]) + "/vars" for depth in range(1, len(groups) + 1))
            names = [file[parent].attrs["name"] for parent in parents if parent in file]
            values["/".join(names), int(index)] = item[()]

        file.visititems(visit)
    return values


def _judge(model, report: WeightsReport, wrong: list[str], strict: bool) -> None:
    """Raises `WeightsError` unless the file fits."""
    problems = [("do not fit", wrong)]
    if strict:
        problems += [("are missing", report.missing), ("are unexpected", report.unexpected)]
    found = [
        f"{len(items)} {what}: {', '.join(items[:3])}{', ...' if len(items) > 3 else ''}"
        for what, items in problems
        if items
    ]
    if not report.loaded:
        found.append("nothing in it matches the model's names")
    if not found:
        return
    advice = "build the architecture that the file was made for"
    if wrong and all(HEAD in item for item in wrong):
        advice = "for another number of classes pass head='initialise'"
    raise WeightsError(f"{report.source} does not fit {model.name}: {'; '.join(found)}; {advice}")
