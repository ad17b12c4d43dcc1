"""The residual attention network's mask branch (arXiv:1704.06904, Figure 2, equations 1 to 6), with loops."""

import itertools

import keras
import numpy as np
import pytest
from helpers import check_layer, feature_map, randomise, relative_error
from layers.references import sigmoid

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.layers.residual_attention import ResidualAttention


def positions(x):
    return itertools.product(*map(range, x.shape[:3]))


def array(variable):
    return np.array(variable, "float64")


def convolution(x, conv):
    kernel = array(conv.kernel)  # (k, k, in, out)
    k = len(kernel)
    y = np.zeros((*x.shape[:3], kernel.shape[-1])) + (array(conv.bias) if conv.use_bias else 0.0)
    for n, i, j in positions(x):
        for a, b in itertools.product(range(k), range(k)):
            row, column = i + a - k // 2, j + b - k // 2
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                y[n, i, j] += x[n, row, column] @ kernel[a, b]
    return y


def normalisation(x, norm):
    if isinstance(norm, keras.layers.DepthwiseConv2D):  # what folding leaves: a factor and an offset
        return x * array(norm.kernel)[0, 0, :, 0] + array(norm.bias)
    gamma, beta, mean, variance = map(array, (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
    return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta


def pre_activation(x, block):
    """BN, ReLU, convolution in turn; without batch normalisation only the first of the BNs is there, as an affine."""
    for n, conv in enumerate(block.convs):
        if n < len(block.norms):
            x = normalisation(x, block.norms[n])
        x = convolution(np.maximum(x, 0), conv)
    return x


def residual(x, blocks):
    for block in blocks:
        x = x + pre_activation(x, block)
    return x


def max_pool(x):
    """3×3, stride 2, as many zero-weight pixels on both sides as cover the map; the odd one at the bottom, right."""
    batch, height, width, channels = x.shape
    rows, columns = -(-height // 2), -(-width // 2)
    top, left = ((2 * out + 1 - size) // 2 for out, size in ((rows, height), (columns, width)))
    y = np.full((batch, rows, columns, channels), -np.inf)
    for n, i, j in positions(y):
        for a, b in itertools.product(range(3), range(3)):
            row, column = 2 * i + a - top, 2 * j + b - left
            if 0 <= row < height and 0 <= column < width:
                y[n, i, j] = np.maximum(y[n, i, j], x[n, row, column])
    return y


def bilinear(x, height, width):
    """Pixel centres at half integers; beyond the outer centres the edge goes on."""

    def neighbours(place, size, out):
        source = min(max((place + 0.5) * size / out - 0.5, 0), size - 1)
        low = int(source)
        return low, min(low + 1, size - 1), source - low

    y = np.zeros((len(x), height, width, x.shape[-1]))
    for n, i, j in positions(y):
        top, bottom, down = neighbours(i, x.shape[1], height)
        left, right, across = neighbours(j, x.shape[2], width)
        upper = (1 - across) * x[n, top, left] + across * x[n, top, right]
        lower = (1 - across) * x[n, bottom, left] + across * x[n, bottom, right]
        y[n, i, j] = (1 - down) * upper + down * lower
    return y


def gate(x, kind):
    y = np.zeros_like(x)
    for n in range(len(x)):
        for i, j, c in itertools.product(*map(range, x.shape[1:])):
            if kind == "mixed":  # equation 4
                y[n, i, j, c] = sigmoid(x[n, i, j, c])
            elif kind == "channel":  # equation 5
                y[n, i, j, c] = x[n, i, j, c] / np.sqrt(sum(value**2 for value in x[n, i, j]))
            else:  # equation 6
                channel = x[n, :, :, c]
                y[n, i, j, c] = sigmoid((x[n, i, j, c] - channel.mean()) / np.sqrt(channel.var() + 1e-5))
    return y


def mask(x, layer):
    """Figure 2: pool and transform until the bottom, then transform and upsample until the top."""
    by_name = {block.name: block for block in [*layer.down, *layer.up, *layer.skips]}

    def units(path, level):
        return [by_name[f"{path}{level}_unit{i}"] for i in range(1, layer.units + 1)]

    def branch(y, level):  # the mask of what lies between pooling number `level` and its upsampling
        size = y.shape[1:3]
        y = residual(max_pool(y), units("down", level))
        if level < layer.depth:
            skip = residual(y, [by_name[f"skip{level}"]])
            y = branch(y, level + 1) + skip
        return bilinear(residual(y, units("up", level)), *size)

    return gate(pre_activation(branch(x.astype("float64"), 1), layer.head), layer.gate)


def built(layer, x):
    layer.build(x.shape)
    return randomise(layer)


MAPS = {1: (2, 5, 7, 8), 2: (2, 9, 13, 8), 3: (1, 10, 6, 8)}  # 10×6 -> 5×3 -> 3×2 -> 2×1


@pytest.mark.parametrize(
    ("depth", "units", "gate", "use_batch_norm"),
    [
        (1, 1, "mixed", True),
        (1, 2, "mixed", False),
        (2, 1, "mixed", True),
        (2, 1, "mixed", False),
        (3, 2, "mixed", True),
        (3, 1, "mixed", False),
        (1, 1, "channel", True),
        (2, 1, "channel", False),
        (1, 1, "spatial", False),
        (2, 1, "spatial", True),
    ],
)
def test_is_figure_2(depth, units, gate, use_batch_norm):
    x = feature_map(*MAPS[depth])
    layer = built(ResidualAttention(depth, units, gate, use_batch_norm=use_batch_norm), x)
    m = mask(x, layer)
    assert m.std() > 0.02  # so that the comparison says something
    assert relative_error(layer.gates(x), m) < 1e-5
    assert relative_error(layer(x), (1 + m) * x) < 1e-5  # equation 3


@pytest.mark.parametrize("gate", ["mixed", "channel", "spatial"])
def test_naive_is_equation_1(gate):
    x = feature_map(2, 5, 7, 8)
    layer = built(ResidualAttention(gate=gate, residual_learning=False), x)
    assert relative_error(layer(x), mask(x, layer) * x) < 1e-5


@pytest.mark.parametrize("residual_learning", [True, False])
def test_trunk(residual_learning):
    x, trunk = feature_map(2, 5, 7, 8), feature_map(2, 5, 7, 8, seed=5)
    layer = built(ResidualAttention(residual_learning=residual_learning), x)
    expected = (mask(x, layer) + residual_learning) * trunk
    assert relative_error(layer(x, trunk), expected) < 1e-5
    np.testing.assert_array_equal(layer(x, x), layer(x))


def test_ranges_of_the_gates():
    x = feature_map(2, 5, 7, 8)
    gates = {kind: array(built(ResidualAttention(gate=kind), x).gates(x)) for kind in ("mixed", "channel", "spatial")}
    for kind in ("mixed", "spatial"):
        assert 0 < gates[kind].min() < gates[kind].max() < 1
    np.testing.assert_allclose((gates["channel"] ** 2).sum(-1), 1, rtol=1e-5)
    assert gates["channel"].min() < 0
    logits = np.log(gates["spatial"] / (1 - gates["spatial"]))
    np.testing.assert_allclose(logits.mean((1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(logits.std((1, 2)), 1, atol=1e-3)


@pytest.mark.parametrize("gate", ["mixed", "channel", "spatial"])
def test_equal_logits_give_finite_gates_and_gradients(gate):
    """Weights of zero: a norm or a deviation of zero must not divide."""
    import tensorflow as tf

    x = feature_map(2, 5, 7, 8)
    layer = ResidualAttention(gate=gate, use_batch_norm=False)
    layer.build(x.shape)
    layer.head.convs[-1].kernel.assign(np.zeros((1, 1, 8, 8)))
    with tf.GradientTape() as tape:
        gates = layer.gates(x)
        loss = tf.reduce_sum(gates * feature_map(2, 5, 7, 8, seed=2))
    np.testing.assert_array_equal(gates, 0.0 if gate == "channel" else 0.5)
    gradients = tape.gradient(loss, [variable.value for variable in layer.trainable_variables])
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("use_batch_norm", [True, False])
@pytest.mark.parametrize(("depth", "units"), [(1, 1), (2, 2)])
def test_folded(depth, units, use_batch_norm):
    x = feature_map(*MAPS[depth])
    layer = built(ResidualAttention(depth, units, use_batch_norm=use_batch_norm), x)
    folded, weights = layer.folded()
    folded.build(x.shape)
    folded.set_weights(weights)
    assert not any("bn" in variable.path or "moving" in variable.path for variable in folded.variables)
    blocks = 2 * depth * units + depth - 1
    assert len(folded.weights) == 7 * blocks + 5  # an affine, three convolutions, two biases; in the head one less
    assert folded.non_trainable_weights == []
    assert relative_error(folded.gates(x), mask(x, layer)) < 1e-5
    assert relative_error(folded(x), layer(x)) < 1e-5


def test_folded_in_a_model_with_a_trunk():
    inputs = keras.Input((5, 7, 8))
    trunk = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="trunk")(inputs)
    trunk = keras.layers.BatchNormalization(name="trunk_bn")(trunk)
    y = ResidualAttention(name="attention")(inputs, trunk)
    model = randomise(keras.Model(inputs, y))
    folded = kzoo.fold_batch_norm(model)
    x = feature_map(2, 5, 7, 8)
    assert folded.non_trainable_weights == []
    assert relative_error(folded(x), model(x)) < 1e-5


@pytest.mark.parametrize("use_batch_norm", [True, False])
def test_macs(use_batch_norm):
    unit = 16 * 4 + 9 * 4 * 4 + 4 * 16
    head = 5 * 7 * 2 * 16 * 16
    options = dict(use_batch_norm=use_batch_norm)
    assert ResidualAttention(**options).macs((None, 5, 7, 16)) == 3 * 4 * 2 * unit + head
    assert (
        ResidualAttention(2, 3, **options).macs((None, 5, 7, 16)) == (3 * 4 * (6 + 1) + 2 * 2 * 6) * unit + head
    )  # a skip connection at 3×4


def test_fewer_than_four_channels():
    x = feature_map(2, 5, 7, 2)
    layer = built(ResidualAttention(), x)
    assert layer.down[0].convs[1].kernel.shape == (3, 3, 1, 1)
    assert relative_error(layer.gates(x), mask(x, layer)) < 1e-5


def test_statistics_move_in_training_only():
    x = feature_map(2, 5, 7, 8)
    layer = built(ResidualAttention(), x)
    norm = layer.down[0].norms[0]
    before = array(norm.moving_mean)
    layer(x)
    np.testing.assert_array_equal(norm.moving_mean, before.astype("float32"))
    layer(x, training=True)
    assert relative_error(norm.moving_mean, 0.9 * before + 0.1 * max_pool(x).mean((0, 1, 2))) < 1e-5


def test_under_xla():
    """Where TensorFlow's own resize would give other values, and in half precision no gradient."""
    import tensorflow as tf

    x = feature_map(2, 9, 13, 8)
    layer = built(ResidualAttention(), x)
    half = ResidualAttention(dtype="mixed_float16")
    half.build(x.shape)
    half.set_weights(layer.get_weights())

    def gates_and_gradient(x, layer):
        with tf.GradientTape() as tape:
            tape.watch(x)
            gates = tf.cast(layer.gates(x), "float32")
            loss = tf.reduce_sum(gates * feature_map(*x.shape, seed=2))
        return gates, tape.gradient(loss, x)

    expected = gates_and_gradient(tf.constant(x), layer)
    for compiled, tolerance in ((layer, 1e-5), (half, 2e-2)):  # half precision, forth and back
        for actual, exact in zip(
            tf.function(gates_and_gradient, jit_compile=True)(tf.constant(x), compiled), expected, strict=True
        ):
            assert relative_error(actual, exact) < tolerance


@pytest.mark.parametrize(
    "layer",
    [
        ResidualAttention(),
        ResidualAttention(2, 2, "spatial", name="spatial"),
        ResidualAttention(1, 1, "channel", residual_learning=False, use_batch_norm=False, name="channel"),
    ],
    ids=lambda layer: layer.name,
)
def test_layer_contract(layer, tmp_path):
    check_layer(layer, (2, 5, 7, 16), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(depth=0), "depth=0 must be a positive integer"),
        (dict(units=1.5), r"units=1\.5 must be a positive integer"),
        (dict(gate="softmax"), "gate='softmax' is not accepted; use one of 'mixed', 'channel', 'spatial'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InvalidValueError, match=message):
        ResidualAttention(**options)


@pytest.mark.parametrize(
    ("depth", "size", "message"),
    [
        (1, (1, 9), r"\(None, 1, 9, 8\) is too small to be pooled depth=1 times; use larger maps"),
        (2, (9, 2), "depth=2 times; use depth=1 or less, or larger maps"),
        (4, (8, 8), "depth=4 times; use depth=3 or less"),
    ],
)
def test_maps_too_small(depth, size, message):
    with pytest.raises(InvalidValueError, match=message):
        ResidualAttention(depth)(keras.Input((*size, 8)))


@pytest.mark.parametrize(("depth", "size"), [(1, 2), (2, 3), (3, 5)])
def test_smallest_maps(depth, size):
    assert ResidualAttention(depth)(keras.Input((size, size, 8))).shape == (None, size, size, 8)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([keras.Input((5, 32))], r"feature maps .* got shape \(None, 5, 32\)"),
        ([keras.Input((None, 7, 8))], "needs maps of known height and width"),
        (
            [keras.Input((5, 7, 8)), keras.Input((5, 7, 1))],
            r"the trunk has shape \(None, 5, 7, 1\), but .* the input's, \(None, 5, 7, 8\)",
        ),
    ],
    ids=["rank", "unknown size", "trunk"],
)
def test_bad_inputs(inputs, message):
    with pytest.raises(InvalidValueError, match=message):
        ResidualAttention()(*inputs)
