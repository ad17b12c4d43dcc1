def cbam_input(network: keras.Model, block: str, photo: np.ndarray):
    """The CBAM layer of a block, and the map that reaches it from one photograph or several."""
    layer = network.get_layer(f"{block}_attention")
    return layer, keras.Model(network.input, layer.input)(photo if photo.ndim == 4 else photo[None])


def fit(model: keras.Model, x, y, steps: int, learning_rate: float = 1e-2) -> keras.Model:
    """Fits by Adam to the squared error, in batches of 64, the learning rate falling to zero."""
    epochs = -(-steps * 64 // len(x))
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * -(-len(x) // 64))
    model.compile(keras.optimizers.Adam(schedule), "mse")
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    return model


def fitted(make: Callable[[int, int], keras.Model], x, y, steps: int, size: tuple[int, int]) -> keras.Model:
    """The model that `make` gives for images of `size`, with weights that were fitted to the smaller images x."""
    model = make(*size)
    model.set_weights(fit(make(*x.shape[1:3]), x, y, steps).get_weights())
    return model


@figure(
    "Squeeze-and-excitation",
    SqueezeExcite,
    call="SqueezeExcite(reduction=1).gates(photo)",
)
def squeeze_excite(scene: Scene):
    """Three photographs under coloured light, what the layer makes of them, and its gates.

    The layer knows of an image only the mean of every channel, and answers with one factor for each: enough to
    undo a colour cast. It was fitted for this picture, in seconds, to the photograph under {n} random casts; the
    three shown are not among them. Dashes mark the gates that would be exact; the largest error is {error:.3f}.
    """
    photo = resized(scene.pagoda, 64, 96) / 255
    rng = np.random.default_rng(0)
    casts = np.concatenate([[[1.0, 0.6, 0.35], [0.4, 0.7, 1.0], [0.7, 1.0, 0.45]], rng.uniform(0.3, 1, (1024, 3))])
    x = (photo[None, ::8, ::8] * casts[:, None, None]).astype("float32")
    goal = 0.25  # of the photograph's brightness, which gates below 1 can reach under every cast
    layer = SqueezeExcite(reduction=1, divisor=32)  # 32 hidden units for its 3 channels
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    fit(model, x[3:], np.broadcast_to(goal * photo[::8, ::8], x[3:].shape), 5 * scene.steps, 3e-2)
    gates = np.array(layer.gates(x[:3]))[:, 0, 0]  # (3, channels)

    canvas, axes = panels(3, 3, 6)
    for cast, gate, (before, after, bars) in zip(casts, gates, axes, strict=False):
        show(before, photo * cast * 255, f"red × {cast[0]}, green × {cast[1]}, blue × {cast[2]}")
        show(after, photo * cast * gate / goal * 255, f"times the gates, divided by {goal}")
        bars.barh(["red", "green", "blue"], gate, color=["#d62728", "#2ca02c", "#1f77b4"])
        bars.vlines(goal / cast, [-0.4, 0.6, 1.6], [0.4, 1.4, 2.4], color="black", linestyle="--")
        bars.set(xlim=(0, 1), xlabel="gate")
        bars.invert_yaxis()
    return canvas, {"n": len(casts) - 3, "error": np.abs(gates - goal / casts[:3]).max()}


@figure("Channel attention", ChannelAttention, call='network.get_layer("stage3_block3_attention").channel.gates(x)')
def channel_attention(scene: Scene):
    """The gates of every channel in all nine blocks, over {crops} random cuttings of two photographs.

    Bars, sorted, are the means, and lines the range from the smallest to the largest gate: how much the
    weight of a channel depends on what is in the image. The median length of the lines is {first:.2f} in the first
    stage, where some blocks keep their gates near 0.5, and {last:.2f} in the last. Weights: ResNet-20 with CBAM,
    trained on CIFAR-10 ([its card](../cifar10_resnet20_cbam/README.md)). The cuttings have 32×32 pixels, as in training.
    """
    rng = np.random.default_rng(0)
    network, crops = scene.network(32, 32), []
    for photo in (scene.pagoda, scene.flower) * 32:
        side = rng.integers(64, 400)
        top, left = rng.integers(427 - side), rng.integers(640 - side)
        crops.append(resized(photo[top : top + side, left : left + side], 32, 32))
    canvas, axes = panels(3, 3, 6)
    ranges = np.zeros((3, 3))
    for (row, column), axis in np.ndenumerate(axes):
        layer, x = cbam_input(network, f"stage{row + 1}_block{column + 1}", np.stack(crops))
        gates = np.array(layer.channel.gates(x))[:, 0, 0]  # (crops, channels)
        gates = gates[:, np.argsort(-gates.mean(axis=0))]
        axis.bar(np.arange(gates.shape[1]), gates.mean(axis=0), width=0.9, color="#9ecae1")
        axis.vlines(np.arange(gates.shape[1]), gates.min(axis=0), gates.max(axis=0), color="#d94801", linewidth=1.5)
        axis.set(ylim=(0, 1), xlim=(-1, gates.shape[1]), xticks=[])
        axis.set_title(f"stage {row + 1}, block {column + 1}: {gates.shape[1]} channels", fontsize=9)
        ranges[row, column] = np.median(np.ptp(gates, axis=0))
    for axis in axes[:, 0]:
        axis.set_ylabel("gate $M_c$", fontsize=8)
    axes[2, 1].set_xlabel("channels, sorted", fontsize=8)
    return canvas, {"crops": len(crops), "first": np.median(ranges[0]), "last": np.median(ranges[2])}


@figure("Spatial attention", SpatialAttention, call='network.get_layer("stage1_block1_attention").spatial.gates(x)')
def spatial_attention(scene: Scene):
    """The gates of every position, in the first and the last block of each stage.

    Weights: the network of the figure above, here on 128×192 pixels: all but its head is convolution, and takes
    maps of any size. The scale is that of each map.
    """
    photo = resized(scene.pagoda, 128, 192)
    network = scene.network(*photo.shape[:2])
    canvas, axes = panels(2, 4, 3.6)
    show(axes[0, 0], photo, "photograph, 128×192")
    axes[1, 0].axis("off")
    for stage in (1, 2, 3):
        for axis, block in zip(axes[:, stage], (1, 3), strict=True):
            layer, x = cbam_input(network, f"stage{stage}_block{block}", photo)
            gates = np.array(layer.spatial.gates(layer.channel(x)))[0, ..., 0]
            title = f"stage {stage}, block {block}: {gates.shape[0]}×{gates.shape[1]}"
            show(axis, gates, title, bar="gate $M_s$", cmap="magma")
    return canvas, {}


@figure("CBAM: channel, then spatial attention", CBAM, call="cbam.spatial(cbam.channel(x))")
def cbam(scene: Scene):
    """Equation 1 of the paper step by step, in one block of the same trained network.

    Maps show the mean absolute value over the channels of the input F, of F' after the channel gates and of F''
    after the spatial gates, each divided by its own mean, so that only the pattern counts: F'' is flatter than F,
    because in this block the spatial gates hold back what is strong already, the edges.
    """
    photo = resized(scene.pagoda, 128, 192)
    layer, x = cbam_input(scene.network(*photo.shape[:2]), "stage1_block1", photo)
    scaled = layer.channel(x)
    steps = [x, scaled, layer.spatial(scaled)]
    np.testing.assert_allclose(steps[-1], layer(x), rtol=1e-5)
    strengths = [np.abs(np.array(step))[0].mean(axis=-1) for step in steps]
    canvas, axes = panels(2, 3, 5)
    show(axes[0, 0], photo, "photograph")
    axes[0, 1].bar(np.arange(x.shape[-1]), np.array(layer.channel.gates(x)).ravel(), color="#9ecae1")
    axes[0, 1].set(xlabel="channel", ylim=(0, 1))
    axes[0, 1].set_title("$M_c(F)$: one gate for each channel", fontsize=9)
    gates = np.array(layer.spatial.gates(scaled))[0, ..., 0]
    show(axes[0, 2], gates, "$M_s(F')$: one gate for each position", bar="gate", cmap="magma")
    names = ("$F$", "$F' = M_c(F) \\cdot F$", "$F'' = M_s(F') \\cdot F'$")
    for axis, strength, name in zip(axes[1], strengths, names, strict=True):
        title = f"{name}, mean {strength.mean():.2f}"
        show(axis, strength / strength.mean(), title, bar="|value| / mean", cmap="viridis", vmin=0, vmax=4)
    return canvas, {}


@figure("Attention stem", AttentionStem, call="AttentionStem(filters=16, window_size=4, num_mixtures=4).factors()")
def attention_stem(scene: Scene):
    """The mixture factors p(a, b, m) of a fitted stem: how much of each value matrix every place of a 4×4 window gets.

    The layer, followed by one dense layer, was fitted to the pagoda's edges (for each window, how much brighter its
    right half is than its left, and its lower half than its upper), and the flower tests it. The factors learned
    where right and left, above and below are. They explain {position:.0%} of the variance of the flower's edges; the
    same layer with all factors fixed at 1/4, whose values do not know where they stand, explains {fixed:.0%}.
    """
    rng = np.random.default_rng(0)
    pagoda, flower = (photo[:424].mean(axis=-1)[None, ..., None] / 255 for photo in (scene.pagoda, scene.flower))
    corners = rng.integers(0, (420, 636), (4096, 2))
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
        model = fitted(partial(make, name == "fixed"), x, edges(x) / scale, 5 * scene.steps, flower.shape[1:3])
        answer = scale * np.array(model(flower))[0]
        explained[name] = float(1 - np.mean((answer - truth) ** 2) / truth.var())
    factors = np.array(model.get_layer("stem").factors())
    canvas, axes = panels(2, 4, 3.8)
    for m, axis in enumerate(axes[0]):
        show(axis, factors[..., m], f"p(a, b, {m + 1})", bar="factor", cmap="viridis", vmin=0, vmax=1)
    limit = np.quantile(np.abs(truth), 0.99)
    for axis, image, name in zip(
        axes[1],
        (truth[..., 0], answer[..., 0], truth[..., 1], answer[..., 1]),
        ("right − left", "by the stem", "lower − upper", "by the stem"),
        strict=True,
    ):
        show(axis, image, name, cmap="RdBu", vmin=-limit, vmax=limit)
    return canvas, explained | {"sum": factors.sum(axis=-1).max()}


def edges(x: np.ndarray) -> np.ndarray:
    """(n, 4 h, 4 w, 1) -> (n, h, w, 2): right minus left half and lower minus upper half of each 4×4 window."""
    n, height, width, _ = x.shape
    windows = x.reshape(n, height // 4, 2, 2, width // 4, 2, 2).mean(axis=(3, 6))  # (n, h, half, w, half)
    sides, levels = windows.mean(axis=2), windows.mean(axis=4)
    return np.stack([sides[..., 1] - sides[..., 0], levels[:, :, 1] - levels[:, :, 0]], axis=-1)


@figure("Residual attention", ResidualAttention, call="ResidualAttention(depth=3).gates(x)")
def residual_attention(scene: Scene):
    """Masks that look for the flower by brightness alone, from branches that pool once, twice and three times.

    Each mask branch was fitted to cuttings from the left half of the photograph without its colours; the goal,
    the pixels that are orange in the colour photograph, shows in the second panel. Right of the line nothing was ever
    seen. The deeper the branch, the more surroundings a position knows. The overlap with the goal
    (intersection over union) is that of the right half.
    """
    photo = resized(scene.flower, 96, 144)
    goal = (photo[..., 0] > photo[..., 2] + 30).astype("float32")[..., None]
    grey = photo.mean(axis=-1, keepdims=True) / 255
    rng = np.random.default_rng(0)
    corners = rng.integers(0, (96 - 48, 72 - 48), (128, 2), endpoint=True)
    x, y = (np.stack([each[i : i + 48, j : j + 48] for i, j in corners]) for each in (grey, goal))

    def make(depth: int, height: int, width: int):
        inputs = keras.Input((height, width, 1))
        features = keras.layers.Conv2D(16, 3, padding="same", name="features")(inputs)
        mask = ResidualAttention(depth, residual_learning=False, name="mask")(features, ops.ones_like(features))
        return keras.Model(inputs, mask)  # M(x) * 1

    canvas, axes = panels(1, 5, 2.2)
    show(axes[0, 0], photo, "photograph")
    show(axes[0, 1], goal[..., 0], "goal", cmap="gray")
    overlaps = {}
    for depth, axis in zip((1, 2, 3), axes[0, 2:], strict=True):
        model = fitted(partial(make, depth), x, np.repeat(y, 16, axis=-1), scene.steps, grey.shape[:2])
        mask = np.array(model(grey[None]))[0].mean(axis=-1)
        found, wanted = mask[:, 72:] > 0.5, goal[:, 72:, 0] > 0.5
        overlaps[f"depth{depth}"] = (found & wanted).sum() / (found | wanted).sum()
        show(axis, mask, f"depth {depth}, overlap {overlaps[f'depth{depth}']:.0%}", cmap="gray", vmin=0, vmax=1)
        axis.axvline(71.5, color=COLOURS[0])
    return canvas, overlaps
