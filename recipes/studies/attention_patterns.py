"""Figures of `attention_gallery.py` that need no training: where attention looks by construction.

Weights that would be learned are identities, zeros or set by hand, and each caption says which.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kzoo.layers import (
    KernelRegressionAttention,
    LearnedPositionEncoding,
    MultiHeadSelfAttention,
    NeighborhoodAttention,
    NonLocal,
    RelativePositionBias,
    SinusoidalPositionEncoding,
    StandAloneSelfAttention,
    WindowAttention,
)
from kzoo.layers.position_tables import relative_position_index, sinusoids
from kzoo.layers.window_attention import seam_mask
from kzoo.layers.windows import shift

COLOURS = RED, YELLOW, CYAN = "#e6194b", "#ffe119", "#46f0f0"  # of the marked queries


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
    draw: Callable[[Scene], tuple[Figure, dict]]

    @property
    def file(self) -> str:
        return f"{self.draw.__name__}.png"


def plate(layer: type[keras.layers.Layer], equation: str, call: str) -> Callable[[Callable], Plate]:
    """Turns the function that draws a figure into a `Plate`."""
    return lambda draw: Plate(layer, equation, call, draw)


def resized(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.array(ops.image.resize(photo, (height, width), antialias=True)).clip(0, 255)


def panels(rows: int, columns: int, height: float, width: float = 10.5):
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def show(axis, image, title: str = "", bar: str = "", **options):
    """An image without ticks, 0 to 255 where it has colours; `bar` labels its colour bar."""
    image = np.asarray(image)
    picture = axis.imshow(image.clip(0, 255).astype("uint8") if image.ndim == 3 else image, **options)
    axis.set(xticks=[], yticks=[], autoscale_on=False)
    axis.set_title(title, fontsize=9)
    if bar:
        axis.figure.colorbar(picture, ax=axis, shrink=0.8).set_label(bar, fontsize=8)


def mark(axis, row: float, column: float, colour: str) -> None:
    axis.plot(column, row, "o", markersize=8, markerfacecolor=colour, markeredgecolor="black")


def frame(axis, top: float, left: float, height: float, width: float, colour: str) -> None:
    axis.add_patch(
        Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=colour, linewidth=2, clip_on=False)
    )


def lines(axis, rows, columns, cell: int, **options) -> None:
    for row in rows:
        axis.axhline(row * cell - 0.5, color="white", linewidth=1.5, **options)
    for column in columns:
        axis.axvline(column * cell - 0.5, color="white", linewidth=1.5, **options)


def on_sphere(photo: np.ndarray) -> np.ndarray:
    """Colours as unit vectors of four channels, whose products are near 1 for like colours and less for others."""
    colour = (photo - photo.mean(axis=(0, 1))) / 255
    colour /= np.linalg.norm(colour, axis=-1).max()
    return np.concatenate([colour, np.sqrt(1 - (colour**2).sum(-1, keepdims=True).clip(0, 1))], -1).astype("float32")


def measured_weights(layer: keras.layers.Layer, features: np.ndarray, scale: float) -> np.ndarray:
    """The weights of a layer of one head, for every query and key: (height, width, height, width).

    They are read off its output: the projections are set to identities such that queries are `scale` times the
    features, keys the features, and the value of each pixel its own one-hot vector, whose weighted mean is the
    list of the weights.
    """
    height, width, size = features.shape
    pixels = height * width
    one_hot = np.eye(pixels, dtype="float32").reshape(height, width, pixels)
    x = np.concatenate([features, one_hot], axis=-1)[None]
    channels = x.shape[-1]
    if not layer.built:
        layer.build(x.shape)
        for weight in layer.weights:
            weight.assign(ops.zeros_like(weight))
    kernel = np.zeros((channels, 3, channels), "float32")
    kernel[:size, 0, :size] = scale * np.eye(size)
    kernel[:size, 1, :size] = np.eye(size)
    kernel[size:, 2, size:] = np.eye(pixels)
    layer.qkv.kernel.assign(kernel.reshape(channels, -1))
    if hasattr(layer, "proj"):
        layer.proj.kernel.assign(np.eye(channels))
    return np.array(layer(x))[0, ..., size:].reshape(height, width, height, width)


@figure("Non-local block", NonLocal, call='NonLocal("gaussian", subsample=False).attention_weights(features)')
def non_local(scene: Scene):
    """Where three pixels look: the weights f(x_i, x_j) / C(x) over all positions j, however far.

    The gaussian f has no weights of its own. Above, x is the colour alone, and pixels gather their like from
    the whole photograph. Below, x holds the position too, and they gather their like nearby: what a bilateral
    filter does. Colours and positions are unit vectors, times 10 and 7, so that products measure likeness.
    """
    photo = resized(scene.pagoda, 40, 60)
    near = np.stack(np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1.5, 60), indexing="ij"), axis=-1)
    near = np.concatenate([np.cos(near), np.sin(near)], axis=-1) / 2**0.5
    queries = ((8, 45), (14, 19), (34, 6))
    canvas, axes = panels(2, 4, 3.5)
    for row, features, name in (
        (axes[0], 10 * on_sphere(photo), "colours"),
        (axes[1], np.concatenate([10 * on_sphere(photo), 7 * near], axis=-1), "colours and positions"),
    ):
        layer = NonLocal("gaussian", subsample=False)
        layer.build((1, *features.shape))
        weights = np.array(layer.attention_weights(features[None].astype("float32")))
        weights = weights.reshape(40, 60, 40, 60)
        show(row[0], photo, name)
        for (i, j), colour, axis in zip(queries, COLOURS, row[1:], strict=True):
            mark(row[0], i, j, colour)
            show(axis, 1000 * weights[i, j], bar="weight, ‰", cmap="magma")
            mark(axis, i, j, colour)
    return canvas, {"sum": weights.sum(axis=(2, 3)).max()}


@figure(
    "Kernel regression", KernelRegressionAttention, call="KernelRegressionAttention(width)(patches, patches, colours)"
)
def kernel_regression(scene: Scene):
    """The estimator of Nadaraya and Watson with three widths, in one dimension and on patches.

    Above: the brightness along a row of the photograph (grey), estimated from {samples} noisy samples of it (dots). A
    narrow kernel follows every sample, a wide one sees only the mean. Below: non-local means. Queries and keys
    are the 5×5 patches of a noisy cutting ({noise:.2f} of noise), values their middle pixels; every pixel becomes
    the mean of those with a similar surrounding. PSNR is measured against the photograph without noise. There are no trained weights.
    """
    rng = np.random.default_rng(0)
    canvas, axes = panels(2, 4, 4.6)
    truth = scene.pagoda[150].mean(axis=-1) / 255
    where = np.sort(rng.choice(640, 60, replace=False))
    samples = truth[where] + rng.normal(0, 0.05, len(where))
    axes[0, 0].plot(truth, color="grey", linewidth=0.7)
    axes[0, 0].plot(where, samples, ".", markersize=4, color="black")
    axes[0, 0].set_title("row 150 and its samples", fontsize=9)
    everywhere, keys, values = (
        np.asarray(each, "float32").reshape(1, -1, 1) for each in (np.arange(640), where, samples)
    )
    for axis, width in zip(axes[0, 1:], (2.0, 12.0, 150.0), strict=True):
        estimate = KernelRegressionAttention(width)(everywhere, keys, values)
        axis.plot(truth, color="grey", linewidth=0.7)
        axis.plot(where, samples, ".", markersize=3, color="black")
        axis.plot(np.array(estimate).ravel(), color="#d94801")
        axis.set_title(f"width {width:g} pixels", fontsize=9)
    for axis in axes[0]:
        axis.set(ylim=(0, 1.1), xlabel="column")
    axes[0, 0].set_ylabel("brightness")

    clean = scene.pagoda[60:108, 215:287] / 255
    noisy = (clean + rng.normal(0, 0.12, clean.shape)).astype("float32")[None]
    patches = ops.image.extract_patches(noisy, 5, strides=1, padding="same")  # (1, 48, 72, 75)
    show(axes[1, 0], noisy[0] * 255, f"noisy, {psnr(noisy[0], clean):.1f} dB")
    for axis, width in zip(axes[1, 1:], (0.2, 0.6, 3.0), strict=True):
        smooth = np.array(KernelRegressionAttention(width)(patches, patches, noisy))[0]
        show(axis, smooth * 255, f"width {width:g}, {psnr(smooth, clean):.1f} dB")
    return canvas, {"samples": len(where), "noise": 0.12}


def psnr(image, truth) -> float:
    return -10 * np.log10(np.mean((image - truth) ** 2))


@figure(
    "Multi-head self-attention",
    MultiHeadSelfAttention,
    call="MultiHeadSelfAttention(num_heads=3)(x, return_attention_weights=True)",
)
def self_attention(scene: Scene):
    """The weights of one query in three heads, which are groups of channels.

    The projections are identities, set by hand, so each head compares what its own channels hold: colour,
    sinusoidal encodings of the position (row and column), or the column's alone. A query thus asks several
    questions at once; trained projections choose which.
    """
    photo = resized(scene.pagoda, 40, 60)
    encoding = SinusoidalPositionEncoding().encoding((1, 40, 60, 64))  # rows in the first half, columns in the second
    colour = np.zeros((40, 60, 64), "float32")
    colour[..., :4] = 28 * on_sphere(photo)  # for products of 100 after the division by √64
    only_columns = encoding * (np.arange(64) >= 32)
    x = np.concatenate([colour, 1.4 * encoding, 3 * only_columns], axis=-1)[None]
    layer = MultiHeadSelfAttention(num_heads=3)
    layer.build(x.shape)
    layer.qkv.kernel.assign(np.tile(np.eye(x.shape[-1]), 3))
    _, weights = layer(x, return_attention_weights=True)
    weights = np.array(weights).reshape(3, 40, 60, 40, 60)
    canvas, axes = panels(2, 4, 3.5)
    for row, (i, j), mark_colour in zip(axes, ((14, 19), (8, 45)), COLOURS[1::-1], strict=True):
        show(row[0], photo)
        mark(row[0], i, j, mark_colour)
        for axis, head, name in zip(row[1:], weights, ("colour", "row and column", "column"), strict=True):
            show(axis, 1000 * head[i, j], f"head of the {name}", bar="weight, ‰", cmap="magma")
            mark(axis, i, j, mark_colour)
    return canvas, {"sum": weights.sum(axis=(3, 4)).max()}


@figure(
    "Stand-alone self-attention", StandAloneSelfAttention, call="StandAloneSelfAttention(kernel_size=7, num_heads=1)(x)"
)
def stand_alone_attention(scene: Scene):
    """The weights of three queries inside their 7×7 neighbourhoods, which the border clips.

    Above, the logits are products of colours alone. Below, the position embeddings r are set by hand to fall
    with the squared offset: the same colours count less farther away. The query in the corner sees
    {corner} pixels instead of 49. The weights are read off the layer's output: the value of each pixel is its
    own one-hot vector, queries and keys are the colours as unit vectors, and nothing is trained.
    """
    photo = resized(scene.pagoda, 20, 30)
    queries, half = ((0, 29), (6, 9), (14, 12)), 3
    canvas = Figure(figsize=(10.5, 4), layout="constrained")
    axes = canvas.subplot_mosaic("AABCD;AAEFG")
    show(axes["A"], photo, "photograph, 20×30 pixels")
    layer = StandAloneSelfAttention(kernel_size=7, num_heads=1, use_bias=True)
    features = on_sphere(photo)
    without = measured_weights(layer, features, 30)
    size, middle = features.shape[-1], layer.qkv.kernel.shape[0] // 2
    layer.qkv.bias.assign(np.isin(np.arange(layer.qkv.bias.shape[0]), (size, middle)))  # two constants in the query
    falling = -(np.arange(-half, half + 1.0) ** 2) / 4
    for embedding, channel in ((layer.row_embedding, size), (layer.column_embedding, 0)):  # of rows, of columns
        values = np.zeros(embedding.shape)
        values[0, channel] = falling
        embedding.assign(values)
    with_positions = measured_weights(layer, features, 30)
    for weights, name, keys in ((without, "colour", "BCD"), (with_positions, "colour and position", "EFG")):
        for key, (i, j), colour in zip(keys, queries, COLOURS, strict=True):
            box = np.full((7, 7), np.nan)
            for (a, b), _ in np.ndenumerate(box):
                row, column = i + a - half, j + b - half
                if 0 <= row < 20 and 0 <= column < 30:
                    box[a, b] = weights[i, j, row, column]
            show(axes[key], box, name, bar="weight", cmap="magma", vmin=0)
            axes[key].set_facecolor("lightgrey")
            mark(axes[key], half, half, colour)
    for (i, j), colour in zip(queries, COLOURS, strict=True):
        seen = np.argwhere(without[i, j] > 0)
        (top, left), (bottom, right) = seen.min(axis=0), seen.max(axis=0) + 1
        frame(axes["A"], top, left, bottom - top, right - left, colour)
        mark(axes["A"], i, j, colour)
    return canvas, {"corner": int((without[0, 29] > 0).sum()), "sum": with_positions.sum(axis=(2, 3)).max()}


@figure(
    "Neighborhood attention",
    NeighborhoodAttention,
    call="NeighborhoodAttention(num_heads=1, kernel_size=7, dilation=2)(x)",
)
def neighborhood_attention(scene: Scene):
    """The pixels that three queries see, in the middle, at the edge and in the corner, with dilation 1 and 2.

    Filled pixels have a weight above zero, measured on the layer's output with all logits equal (geometry; no
    trained weights). At a border the neighbourhood is moved inward instead of clipped: every query sees
    {seen} pixels. With a dilation they are spread over a wider area.
    """
    photo = resized(scene.flower, 20, 30)
    canvas, axes = panels(1, 2, 3.8)
    for axis, dilation in zip(axes.flat, (1, 2), strict=True):
        weights = measured_weights(NeighborhoodAttention(1, 7, dilation), np.zeros((20, 30, 1), "float32"), 0)
        show(axis, 0.6 * photo + 90, f"kernel_size=7, dilation={dilation}")
        for (i, j), colour in zip(((10, 14), (5, 0), (19, 29)), COLOURS, strict=True):
            for row, column in np.argwhere(weights[i, j] > 0):
                axis.add_patch(Rectangle((column - 0.4, row - 0.4), 0.8, 0.8, color=colour, alpha=0.6, linewidth=0))
            mark(axis, i, j, colour)
    seen = (weights > 0).sum(axis=(2, 3))
    return canvas, {"seen": int(seen[0, 0]), "fewest": int(seen.min()), "sum": weights.sum(axis=(2, 3)).max()}


@figure("Window attention", WindowAttention, call="WindowAttention(num_heads=1, window_size=8, shift_size=4)(x)")
def window_attention(scene: Scene):
    """Windows of 8×8 pixels on a map of 16×24, and the same moved by half a window.

    The filled pixels are those that a query sees, measured on the layer's output with all logits equal (geometry;
    no trained weights): its window, and after the shift a window across the old borders. The third panel is the
    rolled map on which the shifted windows are regular again. Its last window joins pixels from four sides of the
    photograph, so a mask (on the right, white where a query sees a key) keeps them apart: the query in
    the corner sees {corner} pixels.
    """
    photo = resized(scene.pagoda, 160, 240)
    x_shape, cell = (16, 24), 10
    canvas = Figure(figsize=(10.5, 2.6), layout="constrained")
    axes = canvas.subplots(1, 4, width_ratios=(3, 3, 3, 2))
    for axis, step, title in ((axes[0], 0, "windows"), (axes[1], 4, "windows, shifted by 4")):
        weights = measured_weights(WindowAttention(1, 8, step), np.zeros((*x_shape, 1), "float32"), 0)
        show(axis, photo, title)
        for (i, j), colour in (((6, 9), COLOURS[1]), ((15, 23), COLOURS[0])):
            for row, column in np.argwhere(weights[i, j] > 0):
                axis.add_patch(Rectangle((column * cell, row * cell), cell, cell, color=colour, alpha=0.5, linewidth=0))
            mark(axis, i * cell + cell / 2, j * cell + cell / 2, colour)
        lines(axis, range(step, 16, 8), range(step, 24, 8), cell)
    show(axes[2], np.array(shift(photo[None], 4 * cell, 4 * cell))[0], "rolled: shifted windows are regular")
    lines(axes[2], (8,), (8, 16), cell)
    lines(axes[2], (12,), (20,), cell, linestyle=":")
    masks = seam_mask(x_shape, (8, 8), (4, 4))
    show(axes[3], masks[-1] == 0, "mask of its last window", cmap="gray")
    axes[3].set_xlabel("64 keys", fontsize=8)
    axes[3].set_ylabel("64 queries", fontsize=8)
    return canvas, {"corner": int((weights[15, 23] > 0).sum()), "sum": weights.sum(axis=(2, 3)).max()}


@figure(
    "Sinusoidal position encoding",
    SinusoidalPositionEncoding,
    call="SinusoidalPositionEncoding().encoding((1, 40, 60, 64))",
)
def sinusoidal_encoding(scene: Scene):
    """The encoding of 60 positions in 32 channels, four of these channels as curves, and products in two dimensions.

    The wavelength grows from channel to channel. On the right, over the photograph, the product of the encoding of
    the marked position with that of every other. It is largest at the position itself and next along its row and
    column, which lets attention tell near from far. There are no weights.
    """
    table = sinusoids(60, 32)
    canvas = Figure(figsize=(10.5, 2.8), layout="constrained")
    matrix, curves, products = canvas.subplots(1, 3)
    picture = matrix.imshow(table, cmap="RdBu", aspect="auto", vmin=-1, vmax=1)
    matrix.set(xlabel="channel", ylabel="position")
    canvas.colorbar(picture, ax=matrix)
    for channel in (4, 8, 12, 16):
        curves.plot(table[:, channel], label=f"channel {channel}")
    curves.set(xlabel="position", ylim=(-1.1, 1.8))
    curves.legend(fontsize=8, ncols=2, loc="upper center")
    encoding = SinusoidalPositionEncoding().encoding((1, 40, 60, 64))
    i, j = 14, 19
    show(products, resized(scene.pagoda, 40, 60), "2-D: products with one position")
    picture = products.imshow(encoding @ encoding[i, j], cmap="magma", alpha=0.7)
    canvas.colorbar(picture, ax=products, shrink=0.8).set_label("product", fontsize=8)
    mark(products, i, j, COLOURS[1])
    return canvas, {}


@figure("Learned position encoding", LearnedPositionEncoding, call="LearnedPositionEncoding().assign_resized(table)")
def learned_encoding(scene: Scene):
    """What becomes of a table of positions when the image size changes.

    The table has a free vector for every position, so it can hold anything: here, set by hand, the photograph itself,
    as 14×21 vectors of three channels. `assign_resized` fits it to other numbers of positions by bicubic
    interpolation, as when a trained network is to take larger images.
    """
    layer = LearnedPositionEncoding()
    layer.build((None, 14, 21, 3))
    layer.table.assign(resized(scene.flower, 14, 21))
    canvas, axes = panels(1, 3, 2.5)
    show(axes[0, 0], layer.table, "table of 14×21 positions")
    for axis, size in zip(axes[0, 1:], ((28, 42), (10, 15)), strict=True):
        other = LearnedPositionEncoding()
        other.build((None, *size, 3))
        other.assign_resized(layer.table)
        show(axis, other.table, f"resized to {size[0]}×{size[1]}")
    return canvas, {}


@figure("Relative position bias", RelativePositionBias, call="RelativePositionBias(1, window_size=7).bias()")
def relative_position_bias(scene: Scene):
    """One table of 13×13 offsets serves all 49 queries of a 7×7 window: each reads the part that it stands in.

    On the left, which entry of the table each pair of query and key takes. The table is set by hand, to fall with the
    distance and less so to one side. The biases of a query in the middle (yellow) and of one in a corner (red) are
    cuttings of it, turned by 180° because the offset is the query's position minus the key's.
    """
    layer = RelativePositionBias(1, 7)
    layer.build((None, 1, 49, 49))
    y, x = np.mgrid[-6:7, -6:7]
    layer.table.assign((0.4 * x - np.hypot(y, x)).reshape(169, 1))  # right and left differ
    bias = np.array(layer.bias())[0].reshape(7, 7, 7, 7)
    canvas, axes = panels(1, 4, 2.6)
    options = dict(cmap="viridis", vmin=-11, vmax=0)
    show(axes[0, 0], relative_position_index(7), "index: 49 queries × 49 keys", bar="row of the table", cmap="viridis")
    show(axes[0, 1], np.array(layer.table).reshape(13, 13), "table: 13×13 offsets", bar="bias", **options)
    for axis, (i, j), colour in ((axes[0, 2], (3, 3), COLOURS[1]), (axes[0, 3], (0, 6), COLOURS[0])):
        show(axis, bias[i, j], f"bias of query ({i}, {j})", **options)
        mark(axis, i, j, colour)
        frame(axes[0, 1], i, j, 7, 7, colour)
    return canvas, {}
