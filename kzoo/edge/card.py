"""The card beside a LiteRT file, a JSON file that tells what to feed it and what its answers mean."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import keras

from kzoo.edge.runtime import LiteRTModel
from kzoo.errors import InvalidValueError

VERSION = 1


@dataclass(frozen=True)
class Card:
    """What travels with a file.

    Attributes:
        classes: names of the classes, or None where nobody named them.
        crop: side of the centre crop over the shorter side of the picture, see `kzoo.images.Pixels`.
        interpolation: of the resizing, `"bilinear"` or `"bicubic"`.
    """

    classes: tuple[str, ...] | None = None
    crop: float = 1.0
    interpolation: str = "bilinear"


def card_path(path: str | Path) -> Path:
    """Where the card of a file lies: `model.tflite.json` beside `model.tflite`."""
    return Path(f"{path}.json")


def write_card(card: Card, model: keras.Model, precision: str, content: bytes, path: Path) -> None:
    """Writes the card of the file `content`, made of `model`, to `path`."""
    lite = LiteRTModel(content)
    eats_pixels = "preprocessing" in (layer.name for layer in model.layers)
    told = {
        "kzoo_card": VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        "model": model.name,
        "precision": precision,
        "task": "segmentation" if len(lite.output["shape"]) == 4 else "classification",
        "input": {
            **_tensor(lite.input),
            "channels": {1: "grey", 3: "RGB"}.get(int(lite.input["shape"][-1]), "as trained"),
            "values": "pixels of 0 to 255" if eats_pixels else "as in training: the file has no preprocessing",
            "crop": card.crop,
            "interpolation": card.interpolation,
        },
        "output": _tensor(lite.output) | {"values": "probabilities" if lite.gives_probabilities() else "scores"},
        "classes": None if card.classes is None else list(card.classes),
    }
    path.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _tensor(detail: dict) -> dict:
    """Shape and type; an integer stands for `scale * (integer - zero_point)`."""
    told = {"shape": [int(size) for size in detail["shape"]], "dtype": detail["dtype"].__name__}
    scale, zero_point = detail["quantization"]
    return told | ({"scale": float(scale), "zero_point": int(zero_point)} if scale else {})


def read_card(path: str | Path) -> Card | None:
    """The card of a `.tflite` file, or None where there is none.

    Raises:
        InvalidValueError: the card cannot be read, or belongs to another file.
    """
    where = card_path(path)
    try:
        told = json.loads(where.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidValueError(f"cannot read the card {where}: {error}; remove it or export again") from error
    if not isinstance(told, dict) or "kzoo_card" not in told:
        return None  # somebody else's
    if told.get("sha256") != hashlib.sha256(Path(path).read_bytes()).hexdigest():
        raise InvalidValueError(f"{where} is the card of another file than {path}; remove it or export again")
    try:
        classes = told["classes"]
        return Card(None if classes is None else tuple(classes), told["input"]["crop"], told["input"]["interpolation"])
    except (KeyError, TypeError) as error:
        raise InvalidValueError(f"the card {where} lacks {error}; remove it or export again") from error
