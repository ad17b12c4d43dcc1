"""Feature maps and kernels as pictures: one tile for each channel."""

import keras
import numpy as np
from PIL import Image

from kzoo.errors import InvalidValueError
from kzoo.explain.replay import Replay
from kzoo.layers.checks import is_integer

TILE = 48  # pixels that a tile has at least on its shorter side
GAP = 2
PAPER = 255


def draw_feature_maps(maps: np.ndarray, columns: int = 8) -> Image.Image:
    """The channels of a feature map of one image, in rows from the left.

    Each channel has its own scale, from black at 0 to white at its largest value; where some value of the map is
    negative, 0 is mid grey in all of them. A channel that is zero everywhere is of the grey of 0.

    Args:
        maps: (height, width, channels), such as `kzoo.activations(model, images, "p3")["p3"][0]`.
        columns: number of tiles in a row.

    Raises:
        InvalidValueError: another shape, numbers that are none, or no columns.

    Example:
        >>> draw_feature_maps(kzoo.activations(model, images, "stem_conv")["stem_conv"][0]).save("stem.png")
    """
    array = np.asarray(maps, "float32")
    if array.ndim != 3 or not array.size or not np.isfinite(array).all():
        raise InvalidValueError(
            f"maps have shape {array.shape}; finite (height, width, channels) of one image is needed"
        )
    largest = np.abs(array).max(axis=(0, 1))
    scaled = array / np.where(largest > 0, largest, 1)
    grey = 255 * (scaled + 1) / 2 if array.min() < 0 else 255 * scaled
    return _grid(np.repeat(np.moveaxis(grey, -1, 0)[..., None], 3, axis=-1), columns)


def draw_kernels(model: keras.Model, layer: str | None = None, columns: int = 8) -> Image.Image:
    """The kernels of a convolution that reads pixels: what each of its channels looks for.

    All of them have one scale, with 0 as mid grey, so that a kernel without weight is grey.

    Args:
        model: functional or Sequential model.
        layer: name or path of the convolution; default: the first one.
        columns: number of tiles in a row.

    Raises:
        InvalidValueError: no convolution, one that reads other than 1 or 3 channels, or no columns.
        UnknownNameError: no such layer.

    Example:
        >>> draw_kernels(kzoo.build("resnet50", weights="imagenet")).save("kernels.png")
    """
    replay = Replay(model)
    nodes = replay.nodes if layer is None else [replay.place(layer)[0]]
    found = [node for node in nodes if type(node.operation) is keras.layers.Conv2D]
    if not found:
        told = f"{model.name} has no 2D convolution" if layer is None else f"{layer} is no 2D convolution"
        raise InvalidValueError(f"{told} whose kernels could be drawn")
    kernel = keras.ops.convert_to_numpy(found[0].operation.kernel).astype("float32")
    if kernel.shape[2] not in (1, 3):
        raise InvalidValueError(
            f"{found[0].path} reads {kernel.shape[2]} channels; kernels on 1 or 3 can be drawn as pictures"
        )
    colours = np.broadcast_to(np.moveaxis(kernel, -1, 0), (kernel.shape[3], *kernel.shape[:2], 3))
    return _grid(127.5 * (1 + colours / max(np.abs(kernel).max(), 1e-30)), columns)


def _grid(tiles: np.ndarray, columns: int) -> Image.Image:
    """Tiles (n, height, width, 3) of 0 to 255 in rows, each pixel enlarged to a square."""
    if not is_integer(columns, 1):
        raise InvalidValueError(f"columns={columns!r} must be a positive integer")
    times = max(1, -(-TILE // min(tiles.shape[1:3])))
    tiles = np.rint(tiles).astype("uint8").repeat(times, axis=1).repeat(times, axis=2)
    count, height, width, _ = tiles.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), PAPER, "uint8")
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
        sheet[top : top + height, left : left + width] = tile
    return Image.fromarray(sheet)
