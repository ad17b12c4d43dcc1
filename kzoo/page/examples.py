"""Pictures that a page keeps, and what Python makes of them: what its button "Check" compares with."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from kzoo.edge import Card, LiteRTModel
from kzoo.images import read_picture

LARGEST = 640  # pixels of the longer side that is stored
MOST_NUMBERS = 20_000  # of a map that are stored; of every second pixel or so
HEATMAP = "heatmap"  # name of the output that tells where in its image a file sees each class
DIGITS = 7  # that a float32 has


class Example(NamedTuple):
    """An upright picture without what its camera wrote; its name is None if it was drawn for the check alone."""

    name: str | None
    picture: Image.Image


def read_examples(paths: Sequence[Path]) -> list[Example]:
    """The pictures at a size for the web, or one that was drawn where there are none.

    Raises:
        InvalidValueError: a file is no readable picture.
    """
    examples = []
    for path in paths:
        picture = read_picture(path, 3)
        picture.thumbnail((LARGEST, LARGEST))
        examples.append(Example(path.stem, Image.fromarray(np.asarray(picture))))
    return examples or [Example(None, draw_waves())]


def draw_waves(width: int = 173, height: int = 131) -> Image.Image:
    """A picture with something in every place: waves of another length in each colour, and an edge."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [np.sin(x / a + np.cos(y / b) * 2) for a, b in ((9, 17), (23, 7), (5, 41))]
    values = 127.5 + 127.5 * np.stack(waves, axis=-1)
    values[y > 0.6 * height + 0.2 * x] *= 0.5
    return Image.fromarray(values.astype("uint8"))


def store_example(example: Example, number: int, folder: Path, lite: LiteRTModel, card: Card) -> dict:
    """Writes the picture and the pixels that the file takes of it; returns what page.json tells of them.

    The picture, like the pixels, is a PNG file, so that every browser reads the same numbers.
    """
    names = {"picture": f"examples/{number}.png", "pixels": f"examples/{number}_pixels.png"}
    (folder / "examples").mkdir(exist_ok=True)
    example.picture.save(folder / names["picture"])
    _, height, width, channels = lite.input_shape
    pixels = card.pixels.apply(example.picture, (height, width, channels))
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(folder / names["pixels"])
    outputs = lite.predict_each(pixels[None])
    answer = outputs[card.answer] if card.answer else next(iter(outputs.values()))
    probabilities = card.output.probabilities(answer[0])
    step = 1
    if probabilities.ndim == 3:
        while probabilities[::step, ::step].size > MOST_NUMBERS:
            step += 1
        probabilities = probabilities[::step, ::step]
    told = {"name": example.name, **names, "step": step, "probabilities": _listed(probabilities)}
    return told | ({HEATMAP: _listed(outputs[HEATMAP][0])} if HEATMAP in outputs else {})


def _listed(numbers: np.ndarray) -> list[float]:
    return [float(f"{number:.{DIGITS}g}") for number in numbers.ravel()]
