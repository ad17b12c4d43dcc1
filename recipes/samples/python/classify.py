"""Runs a LiteRT file of kzoo without kzoo: numpy, pillow and ai-edge-litert, and what the card beside the file tells.

    python classify.py model.tflite photo.jpg ...

Prints the five most probable classes of each picture, or writes NAME_mask.png, whose numbers are classes, here. Copy
this file: everything about the model is read from `model.tflite.json`.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}  # both antialias


def read_card(path: Path) -> dict:
    """The card of a file; it must be of this file."""
    card = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    if card["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
        raise SystemExit(f"{path}.json is the card of another file")
    return card


def read_picture(path: Path, channels: int) -> Image.Image:
    """The upright picture, on white where it is transparent."""
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert({1: "L", 3: "RGB"}[channels])


def corner(size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Left and top of the centre of a picture of `size` (width, height)."""
    return round((size[0] - width) / 2), round((size[1] - height) / 2)


def fit(picture: Image.Image, pixels: dict, height: int, width: int) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """The picture at the size of the input, and the part of that which shows it (left, top, right, bottom)."""
    how, whole = FILTERS[pixels["interpolation"]], (0, 0, width, height)
    if pixels["resize"] == "stretch":
        return picture.resize((width, height), how), whole
    crop = pixels["resize"] == "crop"
    if crop:  # a sliver would become very long
        short = 50 * min(picture.size)
        size = min(picture.width, short), min(picture.height, short)
        left, top = corner(picture.size, size[1], size[0])
        picture = picture.crop((left, top, left + size[0], top + size[1]))
    tall, wide = (math.floor(side / pixels["crop"]) for side in (height, width))
    taller = picture.height * wide >= picture.width * tall
    if taller == crop:
        size = wide, max(1, wide * picture.height // picture.width)
    else:
        size = max(1, tall * picture.width // picture.height), tall
    picture = picture.resize(size, how)
    left, top = corner(size, height, width)
    image = Image.new(picture.mode, (width, height))  # black
    image.paste(picture, (-left, -top))
    return image, (max(0, -left), max(0, -top), min(width, size[0] - left), min(height, size[1] - top))


def to_integers(values: np.ndarray, tensor: dict) -> np.ndarray:
    """What the input takes."""
    if "scale" not in tensor:
        return values.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    integers = np.round(values / tensor["scale"]) + tensor["zero_point"]
    return np.clip(integers, limits.min, limits.max).astype(tensor["dtype"])


def to_reals(values: np.ndarray, tensor: dict) -> np.ndarray:
    """What the output stands for."""
    if "scale" not in tensor:
        return values.astype("float32")
    return (values.astype("float32") - tensor["zero_point"]) * tensor["scale"]


def probabilities(values: np.ndarray, output: dict) -> np.ndarray:
    """Probabilities of the classes along the last axis; of one unit it is the second class."""
    if output["units"] == 1:
        second = 1 / (1 + np.exp(-values)) if output["values"] == "logits" else values
        return np.concatenate([1 - second, second], axis=-1)
    if output["values"] != "logits":
        return values
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def most_probable(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Class of each pixel of a picture of `size` (width, height)."""
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(maps[..., index])).resize(size, Image.Resampling.BILINEAR))
        for index in range(maps.shape[-1])
    ]
    return np.argmax(planes, axis=0).astype("uint8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs a LiteRT file as the card beside it tells.")
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    options = parser.parse_args()
    card = read_card(options.model)
    given, output = card["input"], card["output"]
    if len(card.get("inputs", [given])) > 1 or "unknown" in (output["task"], output["values"]):
        raise SystemExit(f"{options.model} is not of one picture and its classes: this sample ends here")
    _, height, width, channels = given["shape"]
    names = output["class_names"] or [str(index) for index in range(max(2, output["units"]))]
    interpreter = Interpreter(str(options.model))
    run = interpreter.get_signature_runner(card["signature"])
    for path in options.pictures:
        picture = read_picture(path, channels)
        image, (left, top, right, bottom) = fit(picture, card["pixels"], height, width)
        images = np.zeros(given["shape"], "float32")
        images[0] = np.asarray(image).reshape(height, width, channels)
        answer = run(**{given["argument"]: to_integers(images, given)})[output["argument"]]
        found = probabilities(to_reals(answer[0], output), output)
        if output["task"] == "segmentation":
            if found.shape[:2] != (height, width):
                raise SystemExit(f"the map of {found.shape[:2]} is smaller than the image: this sample ends here")
            mask = most_probable(found[top:bottom, left:right], picture.size)
            Image.fromarray(mask).save(f"{path.stem}_mask.png")
            shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
            told = ", ".join(f"{names[index]} {share:.1%}" for index, share in enumerate(shares) if share)
        else:
            best = np.argsort(-found, kind="stable")[:5]
            told = ", ".join(f"{names[index]} {found[index]:.2%}" for index in best)
        print(f"{path}: {told}")


if __name__ == "__main__":
    main()
