"""What the figures of `attention_gallery.py` share: the photographs, how a figure is described, drawing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import ops
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kzoo.explain.places import read_weights

RED, YELLOW, CYAN = COLOURS = "#e6194b", "#ffe119", "#46f0f0"  # of the marked queries


@dataclass(frozen=True)
class Scene:
    """What figures are drawn from.

    Attributes:
        pagoda: (427, 640, 3), 0 to 255, float32.
        flower: the same.
        model: path of the trained `cifar_resnet20_cbam`.
        steps: of the layers that are fitted.
    """

    pagoda: np.ndarray
    flower: np.ndarray
    model: Path
    steps: int


@dataclass(frozen=True)
class Plate:
    """One figure of the gallery.

    Attributes:
        layer: that it shows.
        equation: of the layer.
        call: the one that made the figure.
        draw: gives the figure and measured numbers; its docstring, with these filled in, is the caption.
    """

    layer: type[keras.layers.Layer]
    equation: str
    call: str
    draw: Callable[[Scene], tuple[Figure, dict[str, float]]]

    @property
    def name(self) -> str:
        return self.draw.__name__


def plate(layer: type[keras.layers.Layer], equation: str, call: str) -> Callable[[Callable], Plate]:
    """Turns a function that draws a figure into a `Plate`."""
    return lambda draw: Plate(layer, equation, call, draw)


def resized(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """A photograph with fewer pixels."""
    return np.array(ops.image.resize(photo, (height, width), antialias=True)).clip(0, 255)


def colour_vectors(photo: np.ndarray) -> np.ndarray:
    """Colours as unit vectors of four channels: products are 1 for equal colours, less for others."""
    colour = (photo - photo.mean(axis=(0, 1))) / 255
    colour /= np.linalg.norm(colour, axis=-1).max()
    height = np.sqrt((1 - (colour**2).sum(axis=-1, keepdims=True)).clip(0))
    return np.concatenate([colour, height], axis=-1).astype("float32")


def weights_between(layer: keras.layers.Layer, features: np.ndarray, scale: float) -> np.ndarray:
    """The weights of a layer of one head, for every query and key: (height, width, height, width).

    Queries are `scale` times the features, keys the features. A layer that is not built yet gets zeros for all its
    other weights.
    """
    height, width, channels = features.shape
    x = features[None].astype("float32")
    if not layer.built:
        layer.build(x.shape)
        layer.set_weights([np.zeros(weight.shape) for weight in layer.weights])
    kernel = np.stack([scale * np.eye(channels), np.eye(channels), np.zeros((channels, channels))], axis=1)
    layer.qkv.kernel.assign(kernel.reshape(channels, -1))
    found = read_weights(layer, [x], {})
    shares = [((i + 0.5) / height, (j + 0.5) / width) for i, j in np.ndindex(height, width)]
    weights = np.stack([found.of_query(share, layer.name)[0, 0] for share in shares])
    return weights.reshape(height, width, height, width)


def panels(rows: int, columns: int, height: float) -> tuple[Figure, np.ndarray]:
    """A figure of 10.5 inches by `height` and its axes, (rows, columns)."""
    figure = Figure(figsize=(10.5, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def show(axis: Axes, image, title: str = "", bar: str = "", **options) -> None:
    """Draws an image without ticks: colours of 0 to 255, or numbers, whose colour bar `bar` labels."""
    image = np.asarray(image)
    image = image.clip(0, 255).astype("uint8") if image.ndim == 3 else image
    picture = axis.imshow(image, interpolation="nearest", **options)
    axis.set(xticks=[], yticks=[], autoscale_on=False)
    axis.set_title(title, fontsize=9)
    if bar:
        axis.figure.colorbar(picture, ax=axis, shrink=0.8).set_label(bar, fontsize=8)


def mark(axis: Axes, row: float, column: float, colour: str) -> None:
    """A dot on a query."""
    axis.plot(column, row, "o", markersize=8, markerfacecolor=colour, markeredgecolor="black")


def frame(axis: Axes, top: int, left: int, height: int, width: int, colour: str) -> None:
    """A frame around pixels."""
    corner = (left - 0.5, top - 0.5)
    axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=2, clip_on=False))


def fill(axis: Axes, seen: np.ndarray, colour: str, cell: float = 1, gap: float = 0) -> None:
    """Tints the pixels that are seen, (rows, columns) booleans; a pixel is drawn `cell` wide, less a gap."""
    for row, column in np.argwhere(seen):
        corner = (cell * column + gap / 2 - 0.5, cell * row + gap / 2 - 0.5)
        axis.add_patch(Rectangle(corner, cell - gap, cell - gap, color=colour, alpha=0.5, linewidth=0))


def grid(axis: Axes, rows: Iterable[float], columns: Iterable[float], linestyle: str = "-") -> None:
    """White lines above the rows and left of the columns."""
    for row in rows:
        axis.axhline(row - 0.5, color="white", linewidth=1.5, linestyle=linestyle)
    for column in columns:
        axis.axvline(column - 0.5, color="white", linewidth=1.5, linestyle=linestyle)
