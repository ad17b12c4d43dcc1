"""Figures of `attention_gallery.py` with learned weights: gates of a trained network, and layers fitted in seconds."""

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
from attention_plates import RED, Scene, panels, plate, resized, show
from keras import ops

import kzoo
from kzoo.layers import CBAM, AttentionStem, ChannelAttention, ResidualAttention, SpatialAttention, SqueezeExcite


def fit(model: keras.Model, x, y, steps: int, learning_rate: float = 1e-2) -> keras.Model:
    """Fits by Adam to the squared error, in batches of 64, the learning rate falling to zero."""
    epochs = -(-steps * 64 // len(x))
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * -(-len(x) // 64))
    model.compile(keras.optimizers.Adam(schedule), "mse", jit_compile=False)  # compiling takes longer than it saves
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    return model


def fitted(make: Callable[[int, int], keras.Model], x, y, steps: int, size: tuple[int, int]) -> keras.Model:
    """The model that `make` gives for images of `size`, with weights that were fitted to the smaller images x."""
    model = make(*size)
    model.set_weights(fit(make(*x.shape[1:3]), x, y, steps).get_weights())
    return model


def network(scene: Scene, height: int, width: int) -> keras.Model:
    """The trained network for images of this size: all but its head is convolution."""
    return kzoo.build("cifar_resnet20_cbam", input_shape=(height, width, 3), weights=str(scene.model))


@plate(SqueezeExcite, "x · sigmoid(W₂ relu(W₁ avg(x)))", "SqueezeExcite(reduction=1, divisor=32).gates(photo)")
def squeeze_excite(scene: Scene):
    """Three photographs under coloured light, what the layer makes of them, and its gates.

    Of an image the layer knows only the mean of every channel, and it answers with one factor for each: enough
    to undo a colour cast. It was fitted, in seconds, to this photograph under {casts} random casts; the three
    shown are not among them. Dashes mark the gates that would be exact; the largest error is {error:.2f}.
    """
    photo = resized(scene.pagoda, 64, 96) / 255
    shown = [[1.0, 0.6, 0.35], [0.4, 0.7, 1.0], [0.7, 1.0, 0.45]]
    casts = np.concatenate([shown, np.random.default_rng(0).uniform(0.3, 1, (1024, 3))])
    small = photo[::8, ::8]
    x = (small * casts[:, None, None]).astype("float32")  # (casts, 8, 12, 3)
    goal = 0.25  # of the photograph's brightness: in reach of gates below 1 under every cast
    layer = SqueezeExcite(reduction=1, divisor=32)  # 32 hidden units for its 3 channels
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    fit(model, x[3:], np.broadcast_to(goal * small, x[3:].shape), 5 * scene.steps, 3e-2)
    gates = np.array(layer.gates(x[:3]))[:, 0, 0]  # (3, channels)

    figure, axes = panels(3, 3, 5.5)
    for cast, gate, (before, after, bars) in zip(casts, gates, axes, strict=False):
        show(before, photo * cast * 255, f"red × {cast[0]}, green × {cast[1]}, blue × {cast[2]}")
        show(after, photo * cast * gate / goal * 255, f"times the gates, divided by {goal}")
        bars.barh(["red", "green", "blue"], gate, color=["#d62728", "#2ca02c", "#1f77b4"])
        bars.vlines(goal / cast, np.arange(3) - 0.4, np.arange(3) + 0.4, color="black", linestyle="--")
        bars.set(xlim=(0, 1), xlabel="gate")
        bars.invert_yaxis()
    return figure, {"casts": len(casts) - 3, "error": np.abs(gates - goal / casts[:3]).max()}


@plate(
    ChannelAttention,
    "M_c(F) = sigmoid(W₁ relu(W₀ avg(F)) + W₁ relu(W₀ max(F)))",
    'kzoo.attention_maps(network, cuttings)["stage3_block1_attention/channel"]',
)
def channel_attention(scene: Scene):
    """The gates of every channel in all nine blocks, over {cuttings} random cuttings of two photographs.

    Bars, sorted, are the means; lines go from the smallest to the largest gate, and show how much the weight
    of a channel depends on what is in the image. The median length of the lines is {first:.2f} in the first
    stage, where two blocks keep their gates near 0.5, and {last:.2f} in the last. Weights: ResNet-20 with CBAM,
    trained on CIFAR-10 ([its card](../cifar10_resnet20_cbam/README.md)); the cuttings have 32×32 pixels, as its
    training images had.
    """
    rng = np.random.default_rng(0)
    cuttings = []
    for photo in (scene.pagoda, scene.flower) * 32:
        side = rng.integers(64, 400)
        top, left = rng.integers(0, (427 - side, 640 - side))
        cuttings.append(resized(photo[top : top + side, left : left + side], 32, 32))
    found = kzoo.attention_maps(network(scene, 32, 32), np.stack(cuttings))
    figure, axes = panels(3, 3, 5.5)
    ranges = np.zeros((3, 3))
    for (stage, block), axis in np.ndenumerate(axes):
        gates = found[f"stage{stage + 1}_block{block + 1}_attention/channel"]  # (cuttings, channels)
        gates = gates[:, np.argsort(-gates.mean(axis=0))]
        channels = np.arange(gates.shape[1])
        axis.bar(channels, gates.mean(axis=0), width=0.9, color="#9ecae1")
        axis.vlines(channels, gates.min(axis=0), gates.max(axis=0), color="#d94801", linewidth=1.5)
        axis.set(ylim=(0, 1), xlim=(-1, len(channels)), xticks=[], ylabel="gate $M_c$")
        axis.set_title(f"stage {stage + 1}, block {block + 1}: {len(channels)} channels", fontsize=9)
        ranges[stage, block] = np.median(np.ptp(gates, axis=0))
    return figure, {"cuttings": len(cuttings), "first": np.median(ranges[0]), "last": np.median(ranges[2])}


@plate(
    SpatialAttention,
    "M_s(F) = sigmoid(f([avg(F); max(F)]))",
    'kzoo.attention_maps(network, photo)["stage1_block1_attention/spatial"]',
)
def spatial_attention(scene: Scene):
    """The gates of every position in the first and the last block of each stage: light passes, dark is held back.

    The first block holds back edges and passes the smooth sky, the last of the second stage does the opposite.
    Weights: the same network, here on 128×192 pixels; it was trained on images of 32×32, but a gate depends on its
    surroundings alone, whatever the size of the map. Each map has its own scale.
    """
    photo = resized(scene.pagoda, 128, 192)
    found = kzoo.attention_maps(network(scene, 128, 192), photo[None])
    figure, axes = panels(2, 4, 3.5)
    show(axes[0, 0], photo, "photograph, 128×192")
    axes[1, 0].axis("off")
    for stage in (1, 2, 3):
        for axis, block in zip(axes[:, stage], (1, 3), strict=True):
            (gates,) = found[f"stage{stage}_block{block}_attention/spatial"]
            size = f"{gates.shape[0]}×{gates.shape[1]}"
            show(axis, gates, f"stage {stage}, block {block}: {size}", bar="gate $M_s$", cmap="magma")
    return figure, {}


@plate(CBAM, "F' = M_c(F) · F, F'' = M_s(F') · F'", "cbam.spatial(cbam.channel(F))")
def cbam(scene: Scene):
    """Equation 1 of the paper step by step, in the first block of the same network.

    Maps below show the mean absolute value over the channels of the input F, of F' after the channel gates and of
    F'' after the spatial gates, each divided by its own mean: only the pattern counts. F'' is flatter than F, for
    in this block the spatial gates hold back what is strong already, the edges.
    """
    photo = resized(scene.pagoda, 96, 144)
    model, name = network(scene, 96, 144), "stage1_block1_attention"
    layer, gates = model.get_layer(name), kzoo.attention_maps(model, photo[None])
    x = keras.Model(model.input, layer.input)(photo[None])
    scaled = layer.channel(x)
    figure, axes = panels(2, 3, 4.4)
    show(axes[0, 0], photo, "photograph")
    axes[0, 1].bar(np.arange(x.shape[-1]), gates[f"{name}/channel"][0], color="#9ecae1")
    axes[0, 1].set(xlabel="channel", ylim=(0, 1))
    axes[0, 1].set_title("$M_c(F)$: one gate for each channel", fontsize=9)
    show(axes[0, 2], gates[f"{name}/spatial"][0], "$M_s(F')$: one gate for each position", bar="gate", cmap="magma")
    names = ("$F$", "$F' = M_c(F) \\cdot F$", "$F'' = M_s(F') \\cdot F'$")
    for axis, name, y in zip(axes[1], names, (x, scaled, layer.spatial(scaled)), strict=True):
        strength = np.abs(np.array(y))[0].mean(axis=-1)
        title = f"{name}, mean {strength.mean():.2f}"
        show(axis, strength / strength.mean(), title, bar="|value| / mean", vmin=0, vmax=4)
    return figure, {"difference": np.abs(np.array(y) - np.array(layer(x))).max()}


@plate(
    AttentionStem,
    "v_ab = (Σ_m p(a, b, m) W_m) x_ab, p(a, b, m) = softmax_m((row_a + column_b)ᵀ ν_m)",
    "AttentionStem(filters=16, num_heads=2).factors()",
)
def attention_stem(scene: Scene):
    """The mixture factors p(a, b, m): how much of each of four value matrices every place of a 4×4 window gets.

    The layer, with one dense layer behind it, was fitted to the edges of the pagoda: for each window, how much
    brighter its right half is than its left, and its lower half than its upper. The factors come to part right
    from left and above from below. On the flower, which it never saw (below, in red and blue), it explains
    {position:.0%} of the variance; with all factors fixed at 1/4, so that values do not know where they stand,
    the same layer explains {fixed:.0%}.
    """
    rng = np.random.default_rng(0)
    pagoda, flower = (photo[None, :424].mean(axis=-1, keepdims=True) / 255 for photo in (scene.pagoda, scene.flower))
    corners = rng.integers(0, (420, 636), (4096, 2), endpoint=True)
    x = np.concatenate([pagoda[:, i : i + 4, j : j + 4] for i, j in corners])  # a stem sees one window at a time
    truth, scale = edges(flower)[0], edges(x).std()

    def make(fixed: bool, height: int, width: int):
        inputs = keras.Input((height, width, 1))
        stem = AttentionStem(filters=16, num_heads=2, name="stem")
        model = keras.Model(inputs, keras.layers.Dense(2)(stem(inputs)))
        if fixed:
            stem.mixtures.assign(ops.zeros_like(stem.mixtures))
            stem.mixture_rows.trainable = stem.mixture_columns.trainable = stem.mixtures.trainable = False
        return model

    explained = {}
    for name in ("fixed", "position"):
        model = fitted(partial(make, name == "fixed"), x, edges(x) / scale, 8 * scene.steps, flower.shape[1:3])
        answer = scale * np.array(model(flower))[0]
        explained[name] = 1 - np.mean((answer - truth) ** 2) / truth.var()
    factors = np.array(model.get_layer("stem").factors())
    figure, axes = panels(2, 4, 3.8)
    for m, axis in enumerate(axes[0]):
        show(axis, factors[..., m], f"p(a, b, {m + 1})", bar="factor", vmin=0, vmax=1)
    limit = np.quantile(np.abs(truth), 0.99)
    images = np.concatenate([truth, answer], axis=-1)[..., [0, 2, 1, 3]]
    titles = ("right − left", "by the stem", "lower − upper", "by the stem")
    for axis, image, title in zip(axes[1], np.moveaxis(images, -1, 0), titles, strict=True):
        show(axis, image, title, cmap="RdBu", vmin=-limit, vmax=limit)
    return figure, explained | {"sum": factors.sum(axis=-1).mean()}


def edges(x: np.ndarray) -> np.ndarray:
    """(n, 4 h, 4 w, 1) -> (n, h, w, 2): right minus left half and lower minus upper half of each 4×4 window."""
    n, height, width, _ = x.shape
    quarters = x.reshape(n, height // 4, 2, 2, width // 4, 2, 2).mean(axis=(3, 6))  # (n, h, half, w, half)
    columns, rows = quarters.mean(axis=2), quarters.mean(axis=4)
    return np.stack([columns[..., 1] - columns[..., 0], rows[:, :, 1] - rows[:, :, 0]], axis=-1)


@plate(ResidualAttention, "(1 + M(x)) · T", "ResidualAttention(depth=3).gates(x)")
def residual_attention(scene: Scene):
    """Masks M that look for a flower in noise, from branches that pool once, twice and three times.

    Each branch was fitted to cuttings from the left half of a grey photograph, mirrored at random and with fresh
    noise; right of the line it saw nothing. The goal is what is orange in the colour photograph. The deeper the
    branch, the larger the surroundings that a position sums up: holes close, and small things are lost. Numbers
    are the overlap with the goal in the right half (intersection over union); grey levels the mean of 16 gates.
    """
    photo, noise, rng = resized(scene.flower, 64, 96), 0.8, np.random.default_rng(0)
    goal = (photo[..., :1] > photo[..., 2:] + 30).astype("float32")
    grey = photo.mean(axis=-1, keepdims=True) / 255
    noisy = grey + rng.normal(0, noise, grey.shape).astype("float32")
    corners = rng.integers(0, (64 - 32, 48 - 32), (1024, 2), endpoint=True)
    x, y = (np.stack([each[i : i + 32, j : j + 32] for i, j in corners]) for each in (grey, goal))
    x, y = (np.concatenate([each[::2], each[1::2, :, ::-1]]) for each in (x, y))
    x = x + rng.normal(0, noise, x.shape).astype("float32")

    def make(depth: int, height: int, width: int):
        inputs = keras.Input((height, width, 1))
        features = keras.layers.Conv2D(16, 3, padding="same")(inputs)
        mask = ResidualAttention(depth, residual_learning=False)(features, ops.ones_like(features))
        return keras.Model(inputs, mask)  # M(x) · 1

    figure, axes = panels(1, 5, 1.9)
    show(axes[0, 0], noisy[..., 0], "grey, with noise", cmap="gray")
    show(axes[0, 1], goal[..., 0], "goal", cmap="gray")
    overlaps = {}
    for depth, axis in zip((1, 2, 3), axes[0, 2:], strict=True):
        model = fitted(partial(make, depth), x, np.repeat(y, 16, axis=-1), -(-scene.steps // 3), grey.shape[:2])
        mask = np.array(model(noisy[None]))[0].mean(axis=-1)
        found, wanted = mask[:, 48:] > 0.5, goal[:, 48:, 0] > 0.5
        overlap = (found & wanted).sum() / (found | wanted).sum()
        show(axis, mask, f"depth {depth}: {overlap:.0%}", cmap="gray", vmin=0, vmax=1)
        axis.axvline(47.5, color=RED)
        overlaps[f"depth{depth}"] = overlap
    return figure, overlaps
