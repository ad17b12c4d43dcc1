"""Segmenting pictures: a class for each pixel, at the picture's own size, and what is written about it.

>>> segmenter = as_segmenter(open_model("runs/camvid_fpn/model.keras"))
>>> mask = segmenter.segment(read_picture("street.jpg", segmenter.channels))
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kzoo.errors import InvalidValueError
from kzoo.files import atomic_path, ensure_writable, write_text
from kzoo.images import Pixels, read_picture
from kzoo.images.overlay import draw_overlay
from kzoo.output import Output
from kzoo.predict.classifier import Opened
from kzoo.predict.tiles import default_margin, lay_tiles, runner, stitch_tiles, tile_shapes, total_stride

MOST_CLASSES = 256  # that fit into the 8 bits of a mask
ENDINGS = {"overlay": "_overlay.png", "mask": "_predicted_mask.png", "areas": "_areas.json"}


@dataclass(frozen=True)
class Segmenter:
    """A model that gives each pixel a class.

    Attributes:
        run: function from images (n, height, width, channels) of 0 to 255 to maps (n, h, w, classes).
        output: meaning of the maps.
        tile_size: (height, width) that the model takes.
        map_size: (height, width) that it gives; smaller for a network without padding.
        channels: number of channels of the images.
        class_names: names of the classes; where nobody knows them, their numbers.
        stride: total stride of the model.
        pixels: way in which a whole picture becomes an image.
    """

    run: Callable[[np.ndarray], np.ndarray]
    output: Output
    tile_size: tuple[int, int]
    map_size: tuple[int, int]
    channels: int
    class_names: tuple[str, ...]
    stride: int
    pixels: Pixels

    def segment(self, picture: Image.Image, tiles: bool = False) -> np.ndarray:
        """Index of the class of each pixel, (height, width) of the picture, uint8.

        Args:
            picture: picture in the mode of the model's channels, of any size.
            tiles: whether the model sees the picture at its own size, tile by tile (`kzoo.predict_tiles`). If not, the
                whole picture is fitted to the model's size, and the probabilities back to its own.
        """
        shown: tuple[Any, ...]
        if tiles:
            margins = [default_margin(*axis, self.stride) for axis in zip(self.tile_size, self.map_size, strict=True)]
            pixels, shown = np.asarray(picture).reshape(1, picture.height, picture.width, self.channels), (...,)
        else:
            margins, shown = [0, 0], self.pixels.window(picture.size, self.tile_size)
            pixels = self.pixels.apply(picture, (*self.tile_size, self.channels))[None]
        rows, columns = map(lay_tiles, pixels.shape[1:3], self.tile_size, self.map_size, margins, [self.stride] * 2)
        if tiles and len(self.class_names) > 2:  # the maps of a large picture would not fit into memory
            return stitch_tiles(self._classes_of, pixels, rows, columns)[0, ..., 0]
        maps = self.output.probabilities(stitch_tiles(self.run, pixels, rows, columns)[0])
        return most_probable(maps[shown], picture.size)

    def _classes_of(self, tiles: np.ndarray) -> np.ndarray:
        return self.output.decide(self.run(tiles))[..., None].astype("uint8")


def as_segmenter(opened: Opened) -> Segmenter:
    """The segmenter that an opened model is.

    Raises:
        InvalidValueError: it gives no maps of classes for images, or they are of a coarser scale than the images.
    """
    shape, model = opened.input_shape, opened.model
    if opened.output.task != "segmentation":
        raise InvalidValueError(
            f"{opened.name} gives {opened.output_shape}, no maps (images, height, width, classes) of classes"
        )
    opened.pixels.check_whole(opened.name)
    taken, given = tile_shapes(model, shape[:2])
    ratios = {side / map_side for side, map_side in zip(taken[:2], given[:2], strict=True)}
    if ratios & {2.0, 4.0, 8.0, 16.0, 32.0}:
        raise InvalidValueError(
            f"{opened.name} gives maps of {given[0]}×{given[1]} for images of {taken[0]}×{taken[1]}, a coarser scale; "
            "a model for segmentation gives a class for each pixel"
        )
    for side, map_side in zip(taken[:2], given[:2], strict=True):
        lay_tiles(map_side, side, map_side, 0, 1)  # raises if the map cannot lie in the middle of the image
    count = opened.output.num_classes
    if count > MOST_CLASSES:
        raise InvalidValueError(f"{opened.name} has {count} classes; a mask of 8 bits holds {MOST_CLASSES}")

    opened.output.check_known(opened.name)
    return Segmenter(
        runner(model),
        opened.output,
        taken[:2],
        given[:2],
        shape[2],
        opened.class_names,
        total_stride(model),
        opened.pixels,
    )


def most_probable(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Index of the most probable class of each pixel, uint8, after a bilinear resizing to `size`.

    Args:
        probabilities: (height, width, classes).
        size: (width, height) of the result. One class after the other is resized, so that a large picture needs no
            memory for all of them.
    """
    best, mask = np.full(size[::-1], -1, "float32"), np.zeros(size[::-1], "uint8")
    for index in range(probabilities.shape[-1]):
        given = Image.fromarray(np.ascontiguousarray(probabilities[..., index], "float32"))
        plane = np.asarray(given.resize(size, Image.Resampling.BILINEAR))
        mask[plane > best] = index
        best = np.maximum(best, plane)
    return mask


def class_areas(mask: np.ndarray, class_names: Sequence[str]) -> list[dict]:
    """Each class with its name, index, number of pixels and share of the area, in the order of the classes."""
    pixels = np.bincount(mask.ravel(), minlength=len(class_names))
    return [
        {"class": name, "index": index, "pixels": int(count), "share": float(count / mask.size)}
        for index, (name, count) in enumerate(zip(class_names, pixels, strict=True))
    ]


def output_paths(pictures: Sequence[Path], directory: Path, endings: Mapping[str, str]) -> dict[Path, dict[str, Path]]:
    """Where the files of each picture go, all below `directory`.

    Args:
        pictures: files.
        directory: of the results.
        endings: kind of result -> what follows the name of a picture.

    Raises:
        InvalidValueError: two pictures would share a file, one would be overwritten, or is itself a result.
    """
    paths = {each: {kind: directory / f"{each.stem}{end}" for kind, end in endings.items()} for each in pictures}
    inputs = {each.resolve(): each for each in pictures}
    owners: dict[Path, Path] = {}
    for picture, outputs in paths.items():
        result = next(iter(outputs.values()))
        first = owners.setdefault(result, picture)
        if first is not picture:
            raise InvalidValueError(
                f"{first} and {picture} would both be written as {result}; predict them in runs of their own, each "
                "with its --output-dir"
            )
        if picture.resolve().parent == directory.resolve() and picture.name.endswith(tuple(endings.values())):
            raise InvalidValueError(f"{picture} is the result of a former run; leave {directory} out of the images")
        for output in outputs.values():
            if output.resolve() in inputs:
                raise InvalidValueError(
                    f"the result of {picture} would overwrite the image {inputs[output.resolve()]}; choose another "
                    "--output-dir"
                )
    return paths


def segment(
    segmenter: Segmenter, files: Mapping[Path, dict[str, Path]], tiles: bool = False
) -> Iterator[dict | InvalidValueError]:
    """Segments pictures and writes the overlay, the mask and the areas of each.

    The mask holds the index of the class of each pixel in 8 bits, at the size of the picture (as its EXIF turns it).

    Args:
        segmenter: what `as_segmenter` gives.
        files: pictures and the files of each, from `output_paths`.
        tiles: as in `Segmenter.segment`.

    Yields:
        What stands in the file of the areas (the picture, its size, its files, and `class_areas`), or the error of a
        picture that cannot be read.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    for path, written in files.items():
        try:
            picture = read_picture(path, segmenter.channels)
        except InvalidValueError as error:
            yield error
            continue
        mask = segmenter.segment(picture, tiles)
        ensure_writable(written["mask"].parent)
        drawings = {"overlay": draw_overlay(picture, mask, segmenter.class_names), "mask": Image.fromarray(mask)}
        for kind, drawing in drawings.items():
            with atomic_path(written[kind]) as partial:
                drawing.save(partial)
        result = {
            "image": str(path),
            "width": picture.width,
            "height": picture.height,
            **{kind: str(written[kind]) for kind in drawings},
            "classes": class_areas(mask, segmenter.class_names),
        }
        write_text(written["areas"], json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        yield result
