"""The card beside a LiteRT file, a JSON file that tells what to feed it and what its answers mean."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import keras

import kzoo
from kzoo.edge.metadata import with_metadata
from kzoo.edge.runtime import LiteRTModel
from kzoo.edge.way import CHANNELS, FORMULA, way_in_words
from kzoo.errors import InvalidValueError
from kzoo.escape import printable
from kzoo.images import Pixels
from kzoo.last_operation import BOXES
from kzoo.output import Output
from kzoo.preprocessing import input_in_words
from kzoo.reading import read_bytes, read_json
from kzoo.surgery.heatmap import HEATMAP

VERSION = 3
LICENSE = "Apache-2.0 for what is of kzoo; the weights have the licence of whoever trained them"


@dataclass(frozen=True, init=False)
class Card:
    """What travels with a file: its meaning and the way to its input.

    Attributes:
        output: meaning of the numbers that the file gives, with the names of the classes.
        pixels: way in which a picture becomes an image; default: `Pixels.default`.
        answer: name of the output that `output` is about, of a file with several.

    Raises:
        InvalidValueError: pixels that leave parts of a picture out, for a file that says where in it things are.

    Example:
        >>> card = Card(Output.of_model(model, ["cat", "dog"]), Pixels("stretch"))
        >>> kzoo.export(model, "model.tflite", card=card)
    """

    output: Output
    pixels: Pixels
    answer: str | None

    def __init__(self, output: Output, pixels: Pixels | None = None, answer: str | None = None):
        if not isinstance(answer, str | None):
            raise InvalidValueError(f"answer={answer!r} must be the name of an output, or None")
        pixels = pixels or Pixels.default(output.of_whole)
        if output.of_whole:
            pixels.check_whole("the file")
        object.__setattr__(self, "output", output)
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "answer", answer)


def card_path(path: str | Path) -> Path:
    """Where the card of a file lies: `model.tflite.json` beside `model.tflite`."""
    return Path(f"{path}.json")


def describe(
    content: bytes, card: Card, model: keras.Model, precision: str, measured: dict[str, float], images: int
) -> tuple[bytes, dict]:
    """A file with its metadata inside, and all that its card tells, as JSON values.

    Args:
        content: a LiteRT file, whose numbers stay as they are.
        card: meaning and way.
        model: model that the file was made of.
        precision: name in `PRECISIONS`.
        measured: metric -> value of the file; empty where nothing was measured.
        images: number of test images on which it was measured.

    Example:
        >>> content, told = describe(path.read_bytes(), card, model, "int8", {"accuracy": 0.9170}, 10_000)
        >>> write_card(told, content, card_path(path))
    """
    told = tell(LiteRTModel(content), card, model, precision, measured, images)
    return with_metadata(content, told, card.output), told


class File(Protocol):
    """A file, as far as its card tells of its tensors."""

    inputs: dict[str, dict]
    outputs: dict[str, dict]

    @property
    def signature(self) -> str | None: ...


def tell(lite: File, card: Card, model: keras.Model, precision: str, measured: dict[str, float], images: int) -> dict:
    """All that the card of a file tells, as `describe`, of one whose metadata nobody writes too."""
    inputs = {name: tell_tensor(name, detail) for name, detail in lite.inputs.items()}
    outputs = {name: tell_tensor(name, detail) for name, detail in lite.outputs.items()}
    given = next(iter(inputs.values()))
    given |= {"channels": CHANNELS.get(given["shape"][-1], "as trained"), **input_in_words(model)}
    wanted = outputs[card.answer or next(iter(outputs))]
    boxes = outputs[BOXES] if card.output.detects else None
    if boxes is not None:
        boxes["meaning"] = "left, top, right and bottom of the box of each place, as shares of the image's sides"
    told = {
        "kzoo_card": VERSION,
        "kzoo": kzoo.__version__,
        "license": LICENSE,
        "model": model.name,
        "precision": precision,
        "signature": lite.signature,
        "layout": "NHWC",
        "formula": FORMULA,
        "input": given,
        "pixels": card.pixels.to_json(),
        "output": card.output.to_json() | {"meaning": card.output.in_words()} | wanted,
        "how": [*way_in_words(given, card.pixels, wanted, card.output, boxes), *_heatmap_in_words(outputs)],
        "measured": {metric: {"value": value, "images": images} for metric, value in measured.items()},
    }
    if len(inputs) > 1 or len(outputs) > 1:
        told |= {"answer": card.answer, "inputs": inputs, "outputs": outputs}
    return told


def _heatmap_in_words(outputs: dict[str, dict]) -> list[str]:
    """What the map of each class says, of a file that has them."""
    if HEATMAP not in outputs:
        return []
    _, height, width, classes = outputs[HEATMAP]["shape"]
    return [
        f"The output {HEATMAP!r} holds {classes} maps of {height} x {width} places, one for each class: how much each "
        "place of the image adds to the logit of the class. Stretch the map of a class over the image."
    ]


def write_card(told: dict, content: bytes, path: Path) -> None:
    """Writes the card of the file `content`, of which `describe` told, to `path`."""
    told = {"kzoo_card": told["kzoo_card"], "sha256": hashlib.sha256(content).hexdigest()} | told
    path.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def tell_tensor(name: str, detail: dict) -> dict:
    """Names in the file and in its signature, shape with None for a batch of any size, and type; an integer stands
    for what the formula says."""
    told = {"name": detail["name"], "argument": name}
    told |= {
        "shape": [None if size is None else int(size) for size in detail["shape"]],
        "dtype": detail["dtype"].__name__,
    }
    scale, zero_point = detail["quantization"]
    return told | ({"scale": float(scale), "zero_point": int(zero_point)} if scale else {})


def read_card(path: str | Path) -> Card | None:
    """The card of a `.tflite` file, or None where there is none.

    Raises:
        InvalidValueError: the card cannot be read, belongs to another file, or holds what cannot be.
    """
    where = card_path(path)
    if not where.exists():
        return None
    try:
        told = read_json(where)
    except InvalidValueError as error:
        raise InvalidValueError(f"cannot read the card {where}: {error}; remove it or export again") from error
    if not isinstance(told, dict) or "kzoo_card" not in told:
        return None  # somebody else's
    _check_version(told["kzoo_card"], where)
    if told.get("sha256") != hashlib.sha256(read_bytes(path)).hexdigest():
        raise InvalidValueError(f"{where} is the card of another file than {path}; remove it or export again")
    try:
        if told["kzoo_card"] == 1:
            told = _of_version_1(told, path)
        return Card(Output.from_json(told.get("output")), Pixels.from_json(told.get("pixels")), told.get("answer"))
    except InvalidValueError as error:
        raise InvalidValueError(f"the card {where} cannot be right: {error}; remove it or export again") from error


def _check_version(version: object, where: Path) -> None:
    if type(version) is int and 1 <= version <= VERSION:
        return
    later = type(version) is int and version > VERSION
    shown = printable(repr(version))
    raise InvalidValueError(
        f"the card {where} has version {shown if len(shown) <= 60 else f'{shown[:60]}…'}; 1 to {VERSION} are read; "
        f"{'update kzoo, ' if later else ''}remove it or export again"
    )


def _of_version_1(told: dict, path: str | Path) -> dict:
    """A card of version 1, which told less of the output, as one of today; the file tells the rest."""
    pixels = told.get("input")
    pixels = {name: pixels.get(name) for name in ("crop", "interpolation")} if isinstance(pixels, dict) else {}
    output = Output.of_file(LiteRTModel(path)).to_json()
    resize = "stretch" if output["task"] == "segmentation" else "crop"  # as prediction did
    return {"pixels": pixels | {"resize": resize}, "output": output | {"class_names": told.get("classes")}}
