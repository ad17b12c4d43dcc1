"""The model card of a page: what the model's file carries, and what its run or its own card says of it."""

from pathlib import Path

import keras

from kzoo.edge import LiteRTModel
from kzoo.edge.card import card_path
from kzoo.images import Pixels
from kzoo.output import Output
from kzoo.reading import read_json, read_report

SHOWN = 12  # names of classes
NO_MEASURES = {"size_bytes", "latency_ms", "max_difference", "loss"}


def facts_of(
    name: str, model: keras.Model | LiteRTModel, output: Output, pixels: Pixels, input_shape: tuple[int, int, int]
) -> dict[str, str]:
    """What a page says of a model: a name for each fact -> the fact, as text.

    Args:
        name: path of the file, or a name of the zoo.
        model: the model.
        output: what its numbers mean.
        pixels: way in which a picture becomes an image.
        input_shape: (height, width, channels) of the images.

    Example:
        >>> facts_of("resnet50", model, output, pixels, (224, 224, 3))["parameters"]
        '25,610,152'
    """
    height, width, channels = input_shape
    path = Path(name)
    facts = {"file or name": "/".join(path.parts[-2:])}
    if isinstance(model, LiteRTModel):
        facts |= _of_card(path)
    else:
        facts |= {"model": model.name, "parameters": f"{model.count_params():,}"}
    if path.is_file():
        facts["size of the file"] = f"{path.stat().st_size:,} bytes"
    facts["images"] = f"{height}×{width} pixels, {channels} channel{'s' * (channels > 1)}"
    facts["from picture to image"] = ", ".join(f"{key}: {value}" for key, value in pixels.to_json().items())
    facts["answer"] = f"{output.task}: {output.in_words()}"
    classes = output.class_names or ()
    more = f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    facts["classes"] = (
        f"{output.num_classes}: {', '.join(classes[:SHOWN])}{more}" if classes else f"{output.num_classes}"
    )
    return facts | (_of_run(path) if path.is_file() else {})


def _of_card(path: Path) -> dict[str, str]:
    """What the card beside a LiteRT file says; it was read and checked when the file was opened."""
    told = read_json(card_path(path)) if card_path(path).exists() else {}
    if not isinstance(told, dict):
        return {}
    facts = {key: str(told[key]) for key in ("model", "precision", "license") if key in told}
    for key, each in told.get("measured", {}).items():
        facts[f"measured {_words(key)}"] = f"{each['value']:.4g} on {each['images']:,} test images"
    return facts


def _of_run(path: Path) -> dict[str, str]:
    """What the report of a run says, beside a model's file."""
    report = read_report(path)
    data, recipe = report.get("dataset", {}), report.get("recipe", {})
    facts = {}
    if {"name", "train"} <= data.keys():
        facts["trained on"] = f"{data['name']}, {data['train']:,} images"
    if recipe.get("smoke"):
        facts["warning"] = "a smoke run: a few images, to see that the path works; its numbers mean nothing"
    for row in report.get("models", {}).values():
        if row.get("file") == path.name:
            numbers = {key: value for key, value in row.items() if isinstance(value, float)}
            for key in sorted(numbers.keys() - NO_MEASURES):
                facts[f"measured {_words(key)}"] = f"{row[key]:.4g} on the test images"
    return facts


def _words(key: str) -> str:
    return key.replace("_", " ")
