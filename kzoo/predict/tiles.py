"""Overlap-tile inference: maps for images of any size from a model that takes one size.

As in Figure 2 of "U-Net: Convolutional Networks for Biomedical Image Segmentation" (arXiv:1505.04597): the image goes
through the model in tiles that overlap, what lies beyond its borders is its own mirror image, and of each tile only
the middle is kept, whose pixels saw all of their surroundings.

The result is that of the whole image, mirrored by the same border, in one piece. That holds to the last digit only if
two things do: the tiles are laid at multiples of the model's total stride, so that each pooling window meets the same
pixels in both; and the border is no smaller than the radius of the receptive field. The 2015 network needs a step of
384 pixels for that, not of the 388 that it gives, since its total stride is 16.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.progress import track

from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.flatten import FlatGraph, Node
from kzoo.graph import Call

BATCH_SIZE = 4
LONG = 16  # tiles from which a bar shows the progress
ANY_SIZE = 64  # of a map whose size is open, to see what a layer makes of it
COARSEST = 32  # total stride where nothing tells it; it suits strides of 1, 2, 4, 8 and 16 too


@dataclass(frozen=True)
class Tiling:
    """How tiles lie along the height or the width of an image.

    Attributes:
        sources: index of the image's pixel that each pixel of the mirrored image shows.
        starts: first pixel of each tile, in the mirrored image and in the result alike.
        tile: number of pixels that a tile shows the model.
        margin: number of pixels left out on each side of its map.
        kept: number of pixels of its map that remain.
    """

    sources: np.ndarray
    starts: range
    tile: int
    margin: int
    kept: int

    def pixels(self, start: int) -> np.ndarray:
        """The pixels of the image that the tile at `start` shows."""
        return self.sources[start : start + self.tile]


def lay_tiles(size: int, tile: int, given: int, margin: int, stride: int) -> Tiling:
    """Lays tiles along an axis of `size` pixels.

    Args:
        size: number of pixels of the image.
        tile: number of pixels that the model takes.
        given: number of pixels that it gives; what a model without padding loses is lost on both sides alike.
        margin: number of pixels of its map to leave out on each side.
        stride: step at multiples of which tiles lie; those that keep fewer pixels than one step lie side by side.

    Raises:
        InvalidValueError: a map that cannot lie in the middle of its tile, or nothing to keep of it.
    """
    lost, kept = tile - given, given - 2 * margin
    if lost < 0 or lost % 2:
        raise InvalidValueError(
            f"tiles of {tile} pixels give {given}; they must give as many, or fewer by an even number"
        )
    if kept < 1:
        raise InvalidValueError(
            f"a margin of {margin} on both sides leaves nothing of the {given} pixels that a tile gives; it must be "
            f"less than {given / 2:g}"
        )
    step = kept // stride * stride or kept
    count = 1 + math.ceil(max(0, size - kept) / step)
    before = lost // 2 + margin
    after = (count - 1) * step + tile - before - size
    sources = np.pad(np.arange(size), (before, max(0, after)), mode="reflect")  # several times where it must
    return Tiling(sources, range(0, count * step, step), tile, margin, kept)


def stitch_tiles(
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    rows: Tiling,
    columns: Tiling,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Runs `predict` on tiles and puts their middles together.

    No more than a batch of tiles is in memory beside the images and the result; a `predict` that ends in an `argmax`
    keeps the result small too.

    Args:
        predict: function from tiles (n, rows.tile, columns.tile, channels), of the type of the images, to maps
            (n, h, w, classes).
        images: (n, height, width, channels).
        rows: tiling of the height, from `lay_tiles`.
        columns: tiling of the width.
        batch_size: number of tiles for one call of `predict`.

    Returns:
        Maps (n, height, width, classes) of the type that `predict` gives.

    Example:
        >>> axis = lay_tiles(1000, tile=256, given=256, margin=64, stride=32)
        >>> stitch_tiles(lambda tiles: model.predict(tiles).argmax(-1)[..., None], images, axis, axis).shape
        (1, 1000, 1000, 1)
    """
    places = list(itertools.product(range(len(images)), rows.starts, columns.starts))
    batches = [places[start : start + batch_size] for start in range(0, len(places), batch_size)]
    console = Console(stderr=True)
    quiet = len(places) < LONG or not console.is_terminal
    result = None
    for batch in track(batches, "tiles", console=console, transient=True, disable=quiet):
        tiles = [images[image][np.ix_(rows.pixels(top), columns.pixels(left))] for image, top, left in batch]
        maps = predict(np.stack(tiles))
        if result is None:
            result = np.empty((*images.shape[:3], maps.shape[-1]), maps.dtype)
        for (image, top, left), tile in zip(batch, maps, strict=True):
            place = result[image, top : top + rows.kept, left : left + columns.kept]
            middle = tile[rows.margin : rows.margin + rows.kept, columns.margin : columns.margin + columns.kept]
            place[...] = middle[: place.shape[0], : place.shape[1]]
    if result is None:
        raise InvalidValueError(f"images of shape {images.shape} have no tiles; give one image or more")
    return result


def predict_tiles(
    model: keras.Model | LiteRTModel,
    images: np.ndarray,
    *,
    tile_size: tuple[int, int] | None = None,
    margin: int | None = None,
    stride: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Maps for images of any size, tile by tile, with mirrored borders.

    Where no pixel of the output depends on one further away than `margin`, the result equals that of the whole image
    in one piece, mirrored by the margin; and with a margin in whole strides, away from the borders, that of the image
    as it is. Layers that look at the whole map, such as the pooling in squeeze-and-excitation, see a tile instead of
    the image. Overlap-tile strategy of arXiv:1505.04597, Figure 2.

    Args:
        model: a Keras model or a LiteRT file with images (n, height, width, channels) as its only input and maps
            (n, height, width, classes) as its only output, as large as the images or, for a network without padding,
            smaller by the same number of pixels on each side.
        images: (n, height, width, channels), any size, any number type.
        tile_size: (height, width) of a tile, only for a Keras model that takes images of any size, which needs it.
        margin: number of pixels to leave out on each side of a tile's map. Default: none for a network without
            padding; else a quarter of the tile, less what it has beyond a multiple of `stride`. The radius of the
            receptive field makes the result exact.
        stride: total stride of the model; the tiles lie at multiples of it. Default: the product of the strides on
            the way to the model's coarsest map, or 32 for a LiteRT file.
        batch_size: number of tiles that go through the model at once.

    Returns:
        Maps (n, height, width, classes) of 32-bit floats, one for each pixel of the images.

    Raises:
        InvalidValueError: a model, images, or an option that do not fit.

    Example:
        >>> model = kzoo.build("unet", num_classes=2)  # 572×572 pixels to 388×388
        >>> kzoo.predict_tiles(model, np.zeros((1, 1000, 700, 3), "uint8")).shape
        (1, 1000, 700, 2)
    """
    images = np.asarray(images)
    taken, given = tile_shapes(model, tile_size)
    if images.ndim != 4 or images.shape[3] != taken[2] or not images.size:
        raise InvalidValueError(
            f"images of shape {images.shape} do not fit; (images, height, width, {taken[2]}) is needed"
        )
    stride = total_stride(model) if stride is None else stride
    for option, value, least in (("margin", margin, 0), ("stride", stride, 1), ("batch_size", batch_size, 1)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise InvalidValueError(f"{option}={value!r} must be an integer of at least {least}")
    rows, columns = (
        lay_tiles(size, tile, side, default_margin(tile, side, stride) if margin is None else margin, stride)
        for size, tile, side in zip(images.shape[1:3], taken[:2], given[:2], strict=True)
    )
    return stitch_tiles(runner(model), images, rows, columns, batch_size)


def default_margin(tile: int, given: int, stride: int) -> int:
    """0 where a model gives less than the tile; else a quarter of it, at a multiple of `stride` if there is one.

    >>> default_margin(572, 388, 16), default_margin(512, 512, 32), default_margin(176, 176, 32)
    (0, 128, 32)
    """
    quarter = tile // 4 if given == tile else 0
    return quarter // stride * stride or quarter


def runner(model: keras.Model | LiteRTModel) -> Callable[[np.ndarray], np.ndarray]:
    """What runs a batch of pixels of any number type through `model`."""
    run = model.predict if isinstance(model, LiteRTModel) else model.predict_on_batch
    return lambda batch: np.asarray(run(np.asarray(batch, "float32")), "float32")


def tile_shapes(
    model: keras.Model | LiteRTModel, tile_size: tuple[int, int] | None = None
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Shapes (height, width, channels) of the tile that `model` takes and (height, width, classes) that it gives.

    Raises:
        InvalidValueError: no model from images to maps, or a `tile_size` that is missing or does not fit.
    """
    taken: tuple[Any, ...]
    given: tuple[Any, ...]
    if isinstance(model, LiteRTModel):
        name, taken, given = "the file", model.input_shape[1:], tuple(int(size) for size in model.output["shape"][1:])
    elif isinstance(model, keras.Model) and len(model.inputs or ()) == len(model.outputs or ()) == 1:
        name, taken, given = model.name, tuple(model.inputs[0].shape[1:]), tuple(model.outputs[0].shape[1:])
    else:
        raise InvalidValueError(
            f"{getattr(model, 'name', repr(model))} is no Keras model or kzoo.edge.LiteRTModel with one input and one "
            "output"
        )
    if len(taken) != 3 or len(given) != 3:
        raise InvalidValueError(
            f"{name} maps {taken} to {given}; (height, width, channels) to (height, width, classes) is needed"
        )
    if tile_size is not None:
        tile: tuple[Any, ...] = (*tile_size, taken[2]) if isinstance(tile_size, (tuple, list)) else ()
        if len(tile) != 3 or any(type(size) is not int or size < 1 for size in tile[:2]):
            raise InvalidValueError(f"tile_size={tile_size!r} must be (height, width)")
        if any(size not in (None, asked) for size, asked in zip(taken, tile, strict=True)):
            raise InvalidValueError(f"{name} takes tiles of {taken[0]}×{taken[1]} alone, not tile_size={tile_size}")
        taken = tile
        if None in given and not isinstance(model, LiteRTModel):
            given = tuple(model.compute_output_shape((1, *tile))[1:])
    if None in taken:
        raise InvalidValueError(f"{name} takes images of any size; say which with tile_size=(height, width)")
    return (taken[0], taken[1], taken[2]), (given[0], given[1], given[2])


def total_stride(model: keras.Model | LiteRTModel) -> int:
    """Pixels of the image from one value to the next in the coarsest map of `model`; 32 where nothing tells it."""
    if isinstance(model, LiteRTModel):
        return COARSEST
    try:
        graph = FlatGraph(model)
    except InvalidValueError:  # a subclassed model
        return COARSEST
    maps: dict[Node, _Map] = {}  # what each call reads

    def given(node: Node, shape: tuple) -> _Map:
        """The map of this shape that a call gives, or the last one before a tensor that is no map."""
        if node.call is None:
            return _Map(1.0, shape[1] if len(shape) == 4 else None)
        before = maps.get(node, _Map(1.0, None))
        scale = max(1.0, before.scale * _stride(node, node.call, before.height, shape))
        flat = len(shape) != 4 or tuple(shape[1:3]) == (1, 1)  # the mean of a map is none either
        return _Map(scale, before.height if flat else shape[1])

    coarsest = 1.0
    for node in graph.nodes():  # in the order of the graph
        shapes = node.call.input_shapes if node.call else ()
        read = [given(*each) for each in zip(node.sources, shapes, strict=True)]
        # maps that meet have one scale; a path with a resizing that is not known here seems coarser than it is
        maps[node] = min(read, key=lambda each: each.scale, default=_Map(1.0, None))
        coarsest = max([coarsest, *(each.scale for each in read)])
    outputs = zip(graph.outputs, model.outputs, strict=True)
    return round(max([coarsest, *(given(node, tuple(output.shape)).scale for node, output in outputs)]))


class _Map(NamedTuple):
    """How coarse a map is, in pixels of the image, and its height, None where that is open."""

    scale: float
    height: int | None


def _stride(node: Node, call: Call, height: int | None, shape: tuple) -> float:
    """Factor by which a call's map is coarser than the map of this height before it; below 1 if it is finer."""
    operation = node.operation
    if hasattr(operation, "strides"):
        strides = float(np.max(operation.strides))
        return 1 / strides if isinstance(operation, keras.layers.Conv2DTranspose) else strides
    if len(shape) != 4 or tuple(shape[1:3]) == (1, 1):
        return 1.0
    after, before = shape[1], call.input_shapes[0] if call.input_shapes else ()
    if None in (height, after) and isinstance(operation, keras.layers.Layer) and len(node.sources) == 1:
        if len(before) != 4:
            return 1.0
        height, after = ANY_SIZE, operation.compute_output_shape((1, ANY_SIZE, ANY_SIZE, before[3]))[1]
    if None in (height, after):
        return 1.0
    ratio = height / after  # but for a border that is lost
    return float(round(ratio)) if ratio >= 1 else 1 / round(1 / ratio)
