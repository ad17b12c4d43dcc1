"""The card beside a LiteRT file, a JSON file that tells what to feed it and what its answers mean."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import keras

from kzoo.edge.runtime import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.escape import printable
from kzoo.images import Pixels
from kzoo.output import Output
from kzoo.preprocessing import input_in_words
from kzoo.reading import read_bytes, read_json

VERSION = 2


@dataclass(frozen=True, init=False)
class Card:
    """What travels with a file: its meaning and the way to its input.

    Attributes:
        output: meaning of the numbers that the file gives, with the names of the classes.
        pixels: way in which a picture becomes an image; default: `Pixels.default`.
        answer: name of the output that `output` is about, of a file with several.

    Raises:
        InvalidValueError: pixels that leave parts of a picture out, for a file that gives each pixel a class.

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
        segments = output.task == "segmentation"
        pixels = pixels or Pixels.default(segments)
        if segments:
            pixels.check_whole("the file")
        object.__setattr__(self, "output", output)
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "answer", answer)


def card_path(path: str | Path) -> Path:
    """Where the card of a file lies: `model.tflite.json` beside `model.tflite`."""
    return Path(f"{path}.json")


def write_card(card: Card, model: keras.Model, precision: str, content: bytes, path: Path) -> None:
    """Writes the card of the file `content`, made of `model`, to `path`."""
    lite = LiteRTModel(content, answer=card.answer)
    several = len(lite.inputs) > 1 or len(lite.outputs) > 1
    image = next(iter(lite.inputs.values()))
    answer = lite.outputs[card.answer or next(iter(lite.outputs))]
    told = {
        "kzoo_card": VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        "model": model.name,
        "precision": precision,
        "input": {
            **_tensor(image),
            "channels": {1: "grey", 3: "RGB"}.get(int(image["shape"][-1]), "as trained"),
            **input_in_words(model),
        },
        "pixels": card.pixels.to_json(),
        "output": card.output.to_json() | {"meaning": card.output.in_words()} | _tensor(answer),
    }
    if several:
        told["answer"] = card.answer
        told["inputs"] = {name: _tensor(detail) for name, detail in lite.inputs.items()}
        told["outputs"] = {name: _tensor(detail) for name, detail in lite.outputs.items()}
    path.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _tensor(detail: dict) -> dict:
    """Shape and type; an integer stands for `scale * (integer - zero_point)`."""
    told = {"shape": [int(size) for size in detail["shape"]], "dtype": detail["dtype"].__name__}
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
