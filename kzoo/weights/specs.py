"""Which public checkpoints exist, where they are, under which licence, and which images they want.

`checkpoints.csv` has a row for each. Its facts are those that the publishers state:

- timm's checkpoints: timm 1.0.31's configs; where they state two sizes, the one that is the model's default.
  `top1` of torchvision's weights (`tv`, `tv2`) is in torchvision 0.28's `meta`, that of Swin in the authors'
  repository, that of other ResNets in the table of timm's model cards, that of other Inceptions in timm's
  documentation.
- keras.applications': the addresses and MD5 hashes in the package, and its `preprocess_input`; licences from Keras
  2.2's documentation, which names no versions; `top1` from keras.io. Nobody states size or crop of the images that
  it was measured on, so they are the usual 7/8 of the resized image.

A number that none of these states is left out.
"""

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from kzoo.errors import WeightsError, did_you_mean
from kzoo.models.slots import plain_of
from kzoo.registry import lookup
from kzoo.weights.fetch import fetch_hub, fetch_keras
from kzoo.weights.files import find, is_torch

HUB = "hf://"
DEFAULT = "imagenet"
# published as pickles alone, which run code when they are opened
PICKLES_ONLY = {
    "fcos": "https://download.pytorch.org/models/fcos_resnet50_fpn_coco-99b0c9b7.pth",
    "googlenet_bn": "https://download.pytorch.org/models/googlenet-1378be20.pth",
    "retinanet": "https://download.pytorch.org/models/retinanet_resnet50_fpn_coco-eeacb38b.pth",
    "retinanet_v2": "https://download.pytorch.org/models/retinanet_resnet50_fpn_v2_coco-5905b1c5.pth",
    **{
        f"nat_{size}": "https://github.com/SHI-Labs/Neighborhood-Attention-Transformer"
        for size in ("mini", "tiny", "small", "base")
    },
}


@dataclass(frozen=True, kw_only=True)
class WeightsSpec:
    """A public checkpoint.

    Attributes:
        model: name of the zoo that it fits.
        name: name for `kzoo.build(model, weights=name)`.
        source: `"hf://owner/name"`, or the address of a file of keras.applications.
        file_hash: published MD5 of that file; empty for the hub, which has its own.
        licence: licence of the weights, as their publisher states it.
        preprocessing: name in `kzoo.models.blocks.PREPROCESSING` of the mean and standard deviation, always for
            RGB pixels of 0 to 255.
        channel_order: order in which the file's own first kernel reads the colours. Loading turns `"bgr"` around.
        size: height and width of the images that it was measured on.
        crop: side of the centre crop over the shorter side of the resized image.
        interpolation: interpolation of that resizing, `"bilinear"` or `"bicubic"`, with antialiasing.
        num_classes: width of its classifier.
        top1: published accuracy on ImageNet-1K's validation images, in percent; None where nothing is published.
        published: place where that is published.

    Example:
        >>> WEIGHTS["vgg16"]["tv_in1k"].top1
        71.592
    """

    model: str
    name: str
    source: str
    file_hash: str
    licence: str
    preprocessing: str
    channel_order: str
    size: int
    crop: float
    interpolation: Literal["bilinear", "bicubic"]
    num_classes: int
    top1: float | None
    published: str


def _read() -> dict[str, dict[str, WeightsSpec]]:
    parse: dict[str, Callable[[str], Any]] = {
        "size": int,
        "crop": float,
        "num_classes": int,
        "top1": lambda text: float(text) if text else None,
    }
    table: dict[str, dict[str, WeightsSpec]] = {}
    with (resources.files(__package__) / "checkpoints.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            spec = WeightsSpec(**{f.name: parse.get(f.name, str)(row[f.name]) for f in fields(WeightsSpec)})
            table.setdefault(spec.model, {})[spec.name] = spec
    return table


# model -> name -> checkpoint; the first of each model is also called "imagenet"
WEIGHTS: dict[str, dict[str, WeightsSpec]] = _read()


def known(model: str) -> tuple[str, ...]:
    """The names that `build(model, weights=...)` accepts, the default one first."""
    names = tuple(WEIGHTS.get(model, ()))
    return (DEFAULT, *names) if names else ()


def resolve(model: str, weights: str | Path) -> tuple[str | Path, WeightsSpec | None]:
    """Finds a checkpoint without fetching it.

    Args:
        model: name of the zoo.
        weights: a name that `known` lists, for the network without the model's attention too if that can start as
            nothing; an address `"hf://owner/name"`, or the path of a file or folder.

    Returns:
        Where the weights are, and their spec if they are a known checkpoint: under its address, or in a file or
        folder that has the public name.

    Raises:
        WeightsError: neither a known name nor an address nor a path that exists.
    """
    text = str(weights)
    entry = lookup(model)
    plain = plain_of(entry, entry.config)
    owners = [model, plain.name] if plain else [model]
    for owner in owners:
        if text in known(owner):
            specs = WEIGHTS[owner]
            spec = specs[text if text in specs else next(iter(specs))]
            return spec.source, spec
    if text.startswith(HUB) or os.path.exists(text):
        return weights, find_spec(text)
    names = list(dict.fromkeys(name for owner in owners for name in known(owner)))
    accepted = f"one of {', '.join(names)}, " if names else ""
    pickle = next((PICKLES_ONLY[owner] for owner in owners if owner in PICKLES_ONLY), None)
    reason = f" (it is published as a pickle alone, at {pickle}; convert it where you trust it)" if pickle else ""
    if not names and not reason:
        reason = ", which has no public weights"
    raise WeightsError(
        f"weights={text!r} is no file and no checkpoint known for {model}{reason}; pass {accepted}'hf://owner/name', "
        f"or the path of a .safetensors, .weights.h5, .h5 or .keras file{did_you_mean(text, names)}"
    )


def fetch_source(source: str | Path, spec: WeightsSpec | None) -> Path:
    """Fetches what `resolve` found, or finds it in a cache; a path stays as it is.

    Raises:
        WeightsError: it cannot be had.
    """
    text = str(source)
    if text.startswith(HUB):
        return fetch_hub(text.removeprefix(HUB))
    if spec and text == spec.source:
        return fetch_keras(text, spec.file_hash)
    return Path(source)


def find_spec(source: str | Path) -> WeightsSpec | None:
    """The spec of an address or of a path: under a public name, or in the hub's cache."""
    text = str(source).rstrip("/")
    path = Path(os.path.abspath(text))
    names = {path.name, path.name.removesuffix(".safetensors")}
    if path.name.startswith("model."):  # model.safetensors in a folder that is a copy of the hub's
        names.add(path.parent.name)
    names |= {part.rpartition("--")[2] for part in path.parts if part.startswith("models--")}
    for specs in WEIGHTS.values():
        for spec in specs.values():
            if text.partition("@")[0] == spec.source or (
                not text.startswith(HUB) and spec.source.rpartition("/")[2] in names
            ):
                return spec
    return None


def preprocessing_of(model: str, path: Path) -> str | None:
    """How images are normalised for the weights at `path`, or None where nothing tells.

    A file that is no known checkpoint, but has torch names, is taken for one like those that the hub has for `model`.
    """
    spec = find_spec(path)
    if spec:
        return spec.preprocessing
    from_hub = (each.preprocessing for each in WEIGHTS.get(model, {}).values() if each.source.startswith(HUB))
    return next(from_hub, None) if path.exists() and is_torch(find(path)) else None
