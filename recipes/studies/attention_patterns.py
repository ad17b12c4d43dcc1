"""Figures of `attention_gallery.py` that need no training: where attention looks by construction.

Weights that would be learned are identities, zeros or set by hand, and the captions say which.
"""

import numpy as np
from attention_plates import (
    COLOURS,
    CYAN,
    RED,
    YELLOW,
    Scene,
    colour_vectors,
    fill,
    frame,
    grid,
    mark,
    panels,
    plate,
    resized,
    show,
    weights_between,
)
from keras import ops

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


@plate(
    NonLocal,
    "y_i = 1/C(x) Σ_j f(x_i, x_j) g(x_j), f = exp(x_i · x_j)",
    'NonLocal("gaussian", subsample=False).attention_weights(x)',
)
def non_local(scene: Scene):
    """Where three pixels look: the weights f(x_i, x_j) / C(x) over all positions j, however far.

    The gaussian f has no weights of its own. Above, x is the colour alone, and pixels gather their like from
    the whole photograph. Below, x holds the position too, and they gather their like nearby: what a bilateral
    filter does. Colours and positions are unit vectors, times 10 and 7, so that products measure likeness.
    """
    photo = resized(scene.pagoda, 40, 60)
    angles = np.stack(np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1.5, 60), indexing="ij"), axis=-1)
    positions = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1) / 2**0.5
    colours = 10 * colour_vectors(photo)
    both = np.concatenate([colours, 7 * positions.astype("float32")], axis=-1)
    figure, axes = panels(2, 4, 3.5)
    for row, x, name in ((axes[0], colours, "colours"), (axes[1], both, "colours and positions")):
        layer = NonLocal("gaussian", subsample=False)
        layer.build((1, *x.shape))
        weights = np.array(layer.attention_weights(x[None])).reshape(40, 60, 40, 60)
        show(row[0], photo, name)
        for (i, j), colour, axis in zip(((8, 45), (14, 19), (34, 6)), COLOURS, row[1:], strict=True):
            mark(row[0], i, j, colour)
            show(axis, 1000 * weights[i, j], bar="weight, ‰", cmap="magma")
            mark(axis, i, j, colour)
    return figure, {"sum": weights.sum(axis=(2, 3)).mean()}


@plate(
    KernelRegressionAttention,
    "f(x) = Σ_i K(x - x_i) y_i / Σ_j K(x - x_j), K(u) = exp(-‖u‖² / (2 width²))",
    "KernelRegressionAttention(width)(queries, keys, values)",
)
def kernel_regression(scene: Scene):
    """Three widths of the kernel, in one dimension and on patches.

    Above: the brightness along a row of the photograph (grey), estimated from {samples} noisy samples (dots).
    A narrow kernel follows every sample, a wide one sees little but the mean. Below: non-local means. Queries
    and keys are the 5×5 patches of a noisy cutting, values their middle pixels: every pixel becomes the mean of
    those with a similar surrounding. The decibels are the signal-to-noise ratio (PSNR) against the cutting
    without noise. No weights are involved.
    """
    rng = np.random.default_rng(0)
    figure, axes = panels(2, 4, 4.6)
    truth = scene.pagoda[150].mean(axis=-1) / 255
    places = np.sort(rng.choice(len(truth), 60, replace=False))
    samples = truth[places] + rng.normal(0, 0.05, len(places))
    queries, keys, values = (np.reshape(x, (1, -1, 1)).astype("float32") for x in (range(640), places, samples))
    for axis, width in zip(axes[0], (None, 2, 12, 150), strict=True):
        axis.plot(truth, color="grey", linewidth=0.7)
        axis.plot(places, samples, ".", markersize=4, color="black")
        axis.set_title(f"width {width} pixels" if width else "row 150 and its samples", fontsize=9)
        axis.set(ylim=(0, 1.1), xlabel="column")
        if width:
            axis.plot(np.ravel(KernelRegressionAttention(width)(queries, keys, values)), color="#d94801")
    axes[0, 0].set_ylabel("brightness")

    clean = scene.pagoda[60:108, 215:287] / 255
    noisy = (clean + rng.normal(0, 0.12, clean.shape)).astype("float32")[None]
    patches = ops.image.extract_patches(noisy, 5, strides=1, padding="same")  # (1, 48, 72, 75)
    for axis, width in zip(axes[1], (None, 0.2, 0.6, 3), strict=True):
        smooth = np.array(KernelRegressionAttention(width)(patches, patches, noisy)) if width else noisy
        psnr = -10 * np.log10(np.mean((smooth[0] - clean) ** 2))
        show(axis, smooth[0] * 255, (f"width {width}" if width else "with noise") + f": {psnr:.1f} dB")
    return figure, {"samples": len(places)}


@plate(
    MultiHeadSelfAttention,
    "softmax(Q Kᵀ / √d) V for each head",
    "MultiHeadSelfAttention(num_heads=3)(x, return_attention_weights=True)",
)
def self_attention(scene: Scene):
    """The weights of two queries in three heads, which are groups of channels.

    The projections are identities, set by hand, so each head compares what its own channels hold: the colour,
    sinusoidal encodings of row and column, or the column's alone. So a query asks several questions at once;
    trained projections choose which.
    """
    photo = resized(scene.pagoda, 40, 60)
    encoding = SinusoidalPositionEncoding().encoding((1, 40, 60, 64))  # rows in the first half, columns in the second
    colours = np.pad(28 * colour_vectors(photo), ((0, 0), (0, 0), (0, 60)))
    x = np.concatenate([colours, 1.4 * encoding, 3 * encoding * (np.arange(64) >= 32)], axis=-1)[None]
    layer = MultiHeadSelfAttention(num_heads=3)
    layer.build(x.shape)
    layer.qkv.kernel.assign(np.tile(np.eye(x.shape[-1]), 3))
    weights = np.array(layer(x, return_attention_weights=True)[1]).reshape(3, 40, 60, 40, 60)
    figure, axes = panels(2, 4, 3.5)
    for row, (i, j), colour in zip(axes, ((14, 19), (8, 45)), (YELLOW, RED), strict=True):
        show(row[0], photo)
        mark(row[0], i, j, colour)
        for axis, head, name in zip(row[1:], weights, ("colour", "row and column", "column"), strict=True):
            show(axis, 1000 * head[i, j], f"head of the {name}", bar="weight, ‰", cmap="magma")
            mark(axis, i, j, colour)
    return figure, {"sum": weights.sum(axis=(3, 4)).mean()}


@plate(
    StandAloneSelfAttention,
    "y_ij = Σ softmax(q_ijᵀ k_ab + q_ijᵀ r_(a-i, b-j)) v_ab over a k × k neighbourhood",
    "StandAloneSelfAttention(kernel_size=7, num_heads=1).weights_and_values(x)",
)
def stand_alone_attention(scene: Scene):
    """The weights of three queries inside their 7×7 neighbourhoods, which the border clips.

    Above, the logits are products of colours. Below, the position embeddings r are set by hand to fall with the
    squared offset: the same colours count less farther away. The query in the corner sees {corner} pixels
    instead of 49. Queries and keys are the colours as unit vectors, and nothing is trained.
    """
    photo = resized(scene.pagoda, 20, 30)
    features = np.pad(colour_vectors(photo), ((0, 0), (0, 0), (0, 8)))  # channels for the offsets
    queries = ((0, 29), (6, 9), (14, 12))
    layer = StandAloneSelfAttention(kernel_size=7, num_heads=1, use_bias=True)
    by_colour = weights_between(layer, features, 30)
    _, half, offsets = layer.row_embedding.shape  # (1, channels / 2, 7)
    constants = (4, half)  # channels of the query that are 1: the first behind the colours, the first of the columns
    layer.qkv.bias.assign(np.isin(np.arange(6 * half), constants))
    for embedding, channel in ((layer.row_embedding, constants[0]), (layer.column_embedding, 0)):
        falling = -((np.arange(offsets) - 3.0) ** 2) / 4
        embedding.assign(np.where(np.arange(half)[:, None] == channel, falling, 0)[None])
    by_both = weights_between(layer, features, 30)

    figure, axes = panels(2, 4, 4)
    show(axes[0, 0], photo, "photograph, 20×30 pixels")
    axes[1, 0].axis("off")
    for (i, j), colour, column in zip(queries, COLOURS, axes.T[1:], strict=True):
        seen = np.argwhere(by_colour[i, j] > 0)
        (top, left), (height, width) = seen.min(axis=0), np.ptp(seen, axis=0) + 1
        frame(axes[0, 0], top, left, height, width, colour)
        mark(axes[0, 0], i, j, colour)
        for axis, weights, name in zip(column, (by_colour, by_both), ("colour", "colour and offset"), strict=True):
            around = np.pad(weights[i, j], 3, constant_values=np.nan)[i : i + 7, j : j + 7]
            show(axis, around, name, bar="weight", cmap="magma", vmin=0)
            axis.set_facecolor("lightgrey")
            mark(axis, 3, 3, colour)
    return figure, {"corner": (by_colour[0, 29] > 0).sum(), "sum": by_both.sum(axis=(2, 3)).mean()}


@plate(
    NeighborhoodAttention,
    "softmax(Q_i · K_ρ(i)ᵀ / √d + B(i, ρ(i))) V_ρ(i) over the k² nearest pixels ρ(i)",
    "NeighborhoodAttention(num_heads=1, kernel_size=7, dilation=2).weights_and_values(x)",
)
def neighborhood_attention(scene: Scene):
    """The pixels that three queries see, in the middle, at the edge and in the corner, with dilation 1 and 2.

    At a border the neighbourhood moves inward instead of being clipped: every query sees {seen} pixels. With a
    dilation they spread over a wider area. Filled are the pixels of a weight above zero, with all logits equal:
    this is geometry, no weights are trained.
    """
    figure, axes = panels(1, 2, 3.8)
    for axis, dilation in zip(axes.flat, (1, 2), strict=True):
        weights = weights_between(NeighborhoodAttention(1, 7, dilation), np.zeros((20, 30, 1)), 0)
        show(axis, 0.6 * resized(scene.flower, 20, 30) + 90, f"kernel_size=7, dilation={dilation}")
        for (i, j), colour in zip(((10, 14), (5, 0), (19, 29)), COLOURS, strict=True):
            fill(axis, weights[i, j] > 0, colour, gap=0.2)
            mark(axis, i, j, colour)
    seen = (weights > 0).sum(axis=(2, 3))
    return figure, {"seen": seen.max(), "fewest": seen.min(), "sum": weights.sum(axis=(2, 3)).mean()}


@plate(
    WindowAttention,
    "softmax(Q Kᵀ / √d + B) V inside windows",
    "WindowAttention(num_heads=1, window_size=8, shift_size=4).weights_and_values(x)",
)
def window_attention(scene: Scene):
    """Windows of 8×8 pixels on a map of 16×24, and the same shifted by half a window.

    Filled is what two queries see: their window, and after the shift one across the old borders. In the third
    panel the map is rolled, so that shifted windows are regular again; dots mark where its ends meet. The last
    window joins pixels from four corners of the photograph, and a mask (white where a query sees a key) keeps
    them apart: the red query sees {corner} pixels. All logits are equal: this is geometry, no weights are trained.
    """
    photo, cell = resized(scene.pagoda, 160, 240), 10  # a pixel of the map is drawn as 10×10
    figure, axes = panels(1, 4, 2.2)
    for axis, step in zip(axes[0], (0, 4), strict=False):
        weights = weights_between(WindowAttention(1, 8, step), np.zeros((16, 24, 1)), 0)
        show(axis, photo, f"shift_size={step}")
        for (i, j), colour in (((6, 9), CYAN), ((15, 23), RED)):
            fill(axis, weights[i, j] > 0, colour, cell)
            mark(axis, cell * (i + 0.5), cell * (j + 0.5), colour)
        grid(axis, np.arange(step, 16, 8) * cell, np.arange(step, 24, 8) * cell)
    show(axes[0, 2], np.array(shift(photo[None], 4 * cell, 4 * cell))[0], "rolled by 4")
    grid(axes[0, 2], [8 * cell], [8 * cell, 16 * cell])
    grid(axes[0, 2], [12 * cell], [20 * cell], linestyle=":")
    show(axes[0, 3], seam_mask((16, 24), (8, 8), (4, 4))[-1] == 0, "mask of the last window", cmap="gray")
    axes[0, 3].set_xlabel("64 keys", fontsize=8)
    axes[0, 3].set_ylabel("64 queries", fontsize=8)
    return figure, {"corner": (weights[15, 23] > 0).sum(), "sum": weights.sum(axis=(2, 3)).mean()}


@plate(
    SinusoidalPositionEncoding,
    "P[i, 2j] = sin(i / 10000^(2j/d)), P[i, 2j+1] = cos(i / 10000^(2j/d))",
    "SinusoidalPositionEncoding().encoding((1, 40, 60, 64))",
)
def sinusoidal_encoding(scene: Scene):
    """The encoding of 60 positions in 32 channels, four channels as curves, and products in two dimensions.

    The wavelength grows from channel to channel. On the right, over the photograph, the product of the encoding of
    the marked position with that of every other. It is largest at the position itself and next along its row and
    column, which lets attention tell near from far. There are no weights.
    """
    figure, ((matrix, curves, products),) = panels(1, 3, 2.8)
    table = sinusoids(60, 32)
    picture = matrix.imshow(table, cmap="RdBu", aspect="auto", vmin=-1, vmax=1)
    matrix.set(xlabel="channel", ylabel="position")
    figure.colorbar(picture, ax=matrix)
    for channel in (4, 8, 12, 16):
        curves.plot(table[:, channel], label=f"channel {channel}")
    curves.set(xlabel="position", ylim=(-1.1, 1.8))
    curves.legend(fontsize=8, ncols=2, loc="upper center")
    encoding = SinusoidalPositionEncoding().encoding((1, 40, 60, 64))
    show(products, resized(scene.pagoda, 40, 60))
    similar = encoding @ encoding[14, 19]
    show(products, similar, "products with one position", bar="product", cmap="magma", alpha=0.7)
    mark(products, 14, 19, YELLOW)
    return figure, {"own": similar[14, 19], "largest": similar.max()}


@plate(LearnedPositionEncoding, "x + table", "LearnedPositionEncoding().assign_resized(table)")
def learned_encoding(scene: Scene):
    """What becomes of a table of positions when the image size changes.

    The table has a free vector for every position, so it can hold anything: here, set by hand, the photograph
    itself, as 14×21 vectors of three channels. `assign_resized` fits it to other numbers of positions by
    bicubic interpolation, as when a trained network is to take larger images.
    """
    figure, axes = panels(1, 3, 2.5)
    table = resized(scene.flower, 14, 21)
    for axis, size in zip(axes.flat, ((14, 21), (28, 42), (10, 15)), strict=True):
        layer = LearnedPositionEncoding()
        layer.build((None, *size, 3))
        layer.assign_resized(table)
        show(axis, layer.table, f"{size[0]}×{size[1]} positions" + (", resized" if size != (14, 21) else ""))
    return figure, {}


@plate(RelativePositionBias, "softmax(q kᵀ / √d + B) v", "RelativePositionBias(num_heads=1, window_size=7).bias()")
def relative_position_bias(scene: Scene):
    """One table of 13×13 offsets serves all 49 queries of a 7×7 window: each reads its own part.

    On the left, which entry of the table each pair of query and key takes. The table is set by hand, to fall with
    the distance, and less so to one side. The biases of a query in the middle (yellow) and of one in a corner
    (red) are cuttings of it, turned by 180° because the offset is the query's position minus the key's.
    """
    layer = RelativePositionBias(num_heads=1, window_size=7)
    layer.build((None, 1, 49, 49))
    y, x = np.mgrid[-6:7, -6:7]
    table = 0.4 * x - np.hypot(y, x)
    layer.table.assign(table.reshape(169, 1))
    bias = np.array(layer.bias()).reshape(7, 7, 7, 7)
    figure, axes = panels(1, 4, 2.5)
    show(axes[0, 0], relative_position_index(7), "index: 49 queries × 49 keys", bar="row of the table")
    show(axes[0, 1], table, "table: 13×13 offsets", bar="bias", vmin=-11, vmax=0)
    for axis, (i, j), colour in ((axes[0, 2], (3, 3), YELLOW), (axes[0, 3], (0, 6), RED)):
        show(axis, bias[i, j], f"bias of query ({i}, {j})", vmin=-11, vmax=0)
        mark(axis, i, j, colour)
        frame(axes[0, 1], i, j, 7, 7, colour)
    return figure, {}
