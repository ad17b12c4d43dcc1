"""Encodings of positions and the relative bias against their papers' equations, written with loops."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import check_layer, feature_map, randomise, relative_error

from kzoo.edge.convert import convert
from kzoo.edge.runtime import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.layers.position import (
    LearnedPositionEncoding,
    RelativePositionBias,
    SinusoidalPositionEncoding,
    relative_position_index,
    resize_positions,
    resize_relative_bias,
    sinusoids,
)


def sinusoid(i, column, d, base):
    """arXiv:1706.03762, section 3.5: sin(i / base^(2j/d)) in column 2j, cos of the same angle in column 2j + 1."""
    j = column // 2
    angle = i / base ** (2 * j / d)
    return math.sin(angle) if column == 2 * j else math.cos(angle)


def cubic(s):
    """Keys' kernel with a = -1/2."""
    s, a = abs(s), -0.5
    if s <= 1:
        return (a + 2) * s**3 - (a + 3) * s**2 + 1
    return a * s**3 - 5 * a * s**2 + 8 * a * s - 4 * a if s < 2 else 0.0


def cubic_taps(old, new):
    """(place, weight) of the four old positions around each new one, those outside left out; weights sum to 1."""
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        first = math.floor(centre) - 1
        taps = [(place, cubic(centre - place)) for place in range(first, first + 4) if 0 <= place < old]
        total = sum(weight for _, weight in taps)
        yield [(place, weight / total) for place, weight in taps]


def bicubic(table, height, width):
    resized = np.zeros((height, width, table.shape[-1]))
    for i, rows in enumerate(cubic_taps(table.shape[0], height)):
        for j, columns in enumerate(cubic_taps(table.shape[1], width)):
            for (y, wy), (x, wx) in itertools.product(rows, columns):
                resized[i, j] += wy * wx * table[y, x]
    return resized


def swin_bias(table, height, width):
    """arXiv:2103.14030, equation 4: B from a table over the offsets -M + 1 to M - 1 of each axis."""
    pixels = list(itertools.product(range(height), range(width)))
    offsets = list(itertools.product(range(-height + 1, height), range(-width + 1, width)))
    bias = np.zeros((table.shape[1], len(pixels), len(pixels)))
    for (q, query), (k, key) in itertools.product(enumerate(pixels), enumerate(pixels)):
        bias[:, q, k] = table[offsets.index((query[0] - key[0], query[1] - key[1]))]
    return bias


def built(layer, shape):
    layer.build(shape)
    return randomise(layer)


@pytest.mark.parametrize(("length", "features", "base"), [(7, 5, 10000.0), (9, 6, 50.0), (3, 1, 10000), (1, 2, 2.0)])
def test_sinusoids_are_the_equations(length, features, base):
    expected = [[sinusoid(i, c, features, base) for c in range(features)] for i in range(length)]
    table = sinusoids(length, features, base)
    assert table.dtype == np.float32
    assert relative_error(table, np.array(expected)) < 1e-7


def test_far_positions_keep_their_digits():
    assert abs(float(sinusoids(100_001, 4)[100_000, 0]) - math.sin(100_000)) < 1e-7


def test_sinusoidal_encoding_of_tokens():
    x = feature_map(2, 7, 5)
    expected = np.array(x, "float64")
    for n, i, c in np.ndindex(x.shape):
        expected[n, i, c] += sinusoid(i, c, 5, 100.0)
    assert relative_error(SinusoidalPositionEncoding(base=100.0)(x), expected) < 1e-6


@pytest.mark.parametrize("channels", [2, 6, 7])
def test_sinusoidal_encoding_of_maps(channels):
    x = feature_map(2, 5, 7, channels)
    half = math.ceil(channels / 2)
    expected = np.zeros((5, 7, channels))
    for i, j, c in np.ndindex(expected.shape):
        row = c < half
        expected[i, j, c] = sinusoid(i, c, half, 1e4) if row else sinusoid(j, c - half, channels - half, 1e4)
    layer = SinusoidalPositionEncoding()
    assert relative_error(layer.encoding(x.shape), expected) < 1e-6
    assert relative_error(layer(x), x + expected) < 1e-6
    assert layer(x[:, :3, :4]).shape == (2, 3, 4, channels)  # one layer for every size
    assert layer.weights == []


@pytest.mark.parametrize("shape", [(2, 7, 5), (2, 5, 7, 6)])
def test_learned_encoding_adds_its_table(shape):
    x = feature_map(*shape)
    layer = built(LearnedPositionEncoding(), x.shape)
    assert [(weight.name, weight.shape) for weight in layer.weights] == [("table", shape[1:])]
    table, expected = np.array(layer.table), np.array(x, "float64")
    for n, *place in itertools.product(*map(range, shape)):
        expected[n, *place] += table[*place]
    assert relative_error(layer(x), expected) < 1e-6


@pytest.mark.parametrize(
    ("layer", "shape"), [(LearnedPositionEncoding(), (1, 50, 60)), (RelativePositionBias(16, 9), (1, 16, 81, 81))]
)
def test_tables_start_small(layer, shape):
    layer.build(shape)
    table = np.array(layer.table)
    assert 0.015 < table.std() < 0.02  # cutting a normal at two deviations takes 12 % off its own
    assert abs(table.mean()) < 0.002
    assert np.abs(table).max() < 0.0401


@pytest.mark.parametrize("size", [(5, 7), (9, 8), (3, 12), (2, 2), (1, 20)])
def test_maps_are_resized_by_cubic_convolution(size):
    table = feature_map(5, 7, 3)
    resized = resize_positions(table, size)
    assert resized.dtype == np.float32
    assert relative_error(resized, bicubic(table, *size)) < 1e-6
    backend = keras.ops.image.resize(table, size, interpolation="bicubic", data_format="channels_last")
    assert relative_error(resized, backend) < 2e-3  # TensorFlow looks its weights up in a table of 1024


@pytest.mark.parametrize("size", [7, 12, 3, 1])
def test_sequences_are_resized_linearly(size):
    table = feature_map(7, 5)
    centres = (np.arange(size) + 0.5) * 7 / size - 0.5
    expected = np.stack([np.interp(centres, np.arange(7), column) for column in table.T], axis=-1)
    assert relative_error(resize_positions(table, size), expected) < 1e-6


def test_equal_sizes_change_nothing():
    for table, size in ((feature_map(7, 5), 7), (feature_map(5, 7, 3), (5, 7)), (feature_map(5, 5, 3), 5)):
        np.testing.assert_array_equal(resize_positions(table, size), table)
    table = feature_map(5 * 9, 3)
    np.testing.assert_array_equal(resize_relative_bias(table, (3, 5), (3, 5)), table)


def test_assign_resized_encoding():
    for new, old in (((9, 5), (7, 5)), ((9, 8, 3), (5, 7, 3))):
        layer = built(LearnedPositionEncoding(), (None, *new))
        table = feature_map(*old)
        layer.assign_resized(keras.ops.convert_to_tensor(table))
        size = new[:-1] if len(new) == 3 else new[0]
        np.testing.assert_array_equal(np.array(layer.table), resize_positions(table, size))


def test_index_of_a_2x2_window():
    expected = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    np.testing.assert_array_equal(relative_position_index(2), expected)


@pytest.mark.parametrize("window", [(3, 5), (5, 3), (1, 4), (1, 1)])
def test_index_is_the_authors(window):
    height, width = window
    index = relative_position_index(window)
    assert index.shape == (height * width, height * width)
    for qy, qx, ky, kx in itertools.product(range(height), range(width), range(height), range(width)):
        expected = (qy - ky + height - 1) * (2 * width - 1) + (qx - kx + width - 1)
        assert index[qy * width + qx, ky * width + kx] == expected


@pytest.mark.parametrize("batch", [(), (2,), (2, 4)])
def test_bias_is_equation_4(batch):
    logits = feature_map(*batch, 3, 15, 15)
    layer = built(RelativePositionBias(3, (3, 5)), logits.shape)
    assert [(weight.name, weight.shape) for weight in layer.weights] == [("table", (5 * 9, 3))]
    bias = swin_bias(np.array(layer.table), 3, 5)
    assert relative_error(layer.bias(), bias) < 1e-6
    assert relative_error(layer(logits), logits + bias) < 1e-6


def test_gradient_of_an_offset_is_the_sum_over_its_pairs():
    layer = built(RelativePositionBias(3, (3, 5)), (None, 3, 15, 15))
    upstream = feature_map(3, 15, 15)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer.bias() * upstream)
    gradient = tape.gradient(loss, layer.table.value)
    assert isinstance(gradient, tf.Tensor)  # not IndexedSlices, which optimizers treat in their own way
    expected = np.zeros((5 * 9, 3))
    for q, k in np.ndindex(15, 15):
        expected[relative_position_index((3, 5))[q, k]] += upstream[:, q, k]
    assert relative_error(gradient, expected) < 1e-6


def test_bias_stays_float32_in_mixed_precision():
    layer = RelativePositionBias(3, (3, 5), dtype="mixed_float16")
    logits = feature_map(2, 3, 15, 15)
    assert layer(logits).dtype == "float16"
    randomise(layer)
    assert layer.bias().dtype == "float32"
    expected = logits.astype("float16") + swin_bias(np.array(layer.table), 3, 5)
    np.testing.assert_array_equal(np.array(layer(logits)), expected.astype("float16"))  # rounded once


def test_relative_table_for_another_window():
    table = feature_map(5 * 9, 3)
    resized = resize_relative_bias(table, (3, 5), (4, 7))
    assert relative_error(resized.reshape(7, 13, 3), bicubic(table.reshape(5, 9, 3), 7, 13)) < 1e-6
    layer = built(RelativePositionBias(3, (4, 7)), (None, 3, 28, 28))
    layer.assign_resized(table, (3, 5))
    np.testing.assert_array_equal(np.array(layer.table), resized)


@pytest.mark.parametrize("new", [(7, 9), (3, 4)])
def test_constants_and_slopes_survive_another_window(new):
    old = (5, 6)
    dy, dx = np.meshgrid(np.arange(-4, 5), np.arange(-5, 6), indexing="ij")
    table = np.stack([np.full(dy.shape, 3.0), 2.0 * dy - 0.5 * dx + 1], axis=-1)
    heights, widths = (2 * size - 1 for size in new)
    resized = resize_relative_bias(table.reshape(-1, 2), old, new).reshape(heights, widths, 2)
    dy = (np.arange(heights) - new[0] + 1)[:, None] * 9 / heights  # a cell of the new grid is 9 / heights old ones
    dx = (np.arange(widths) - new[1] + 1)[None] * 11 / widths
    np.testing.assert_allclose(resized[..., 0], 3, rtol=1e-6)
    inside = (np.abs(dy) <= 3) & (np.abs(dx) <= 4)  # where no tap is beyond the edge
    assert inside.sum() >= 15
    np.testing.assert_allclose(resized[..., 1][inside], (2 * dy - 0.5 * dx + 1)[inside], atol=1e-5)


def test_no_gather_in_the_converted_file():
    inputs = keras.Input((3, 5, 12))
    x = keras.layers.Reshape((15, 3, 4))(keras.layers.Dense(12)(inputs))
    x = keras.ops.transpose(x, (0, 2, 1, 3))  # (B, heads, N, d)
    x = RelativePositionBias(3, (3, 5))(keras.ops.matmul(x, keras.ops.transpose(x, (0, 1, 3, 2))))
    model = randomise(keras.Model(inputs, x))
    file = LiteRTModel(convert(model))
    assert "GATHER" not in file.op_histogram()
    assert file.xnnpack_partitions() == 1
    x = feature_map(2, 3, 5, 12)
    assert relative_error(file.predict(x), model(x)) < 1e-5


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (SinusoidalPositionEncoding(base=500.0), (2, 7, 5)),
        (SinusoidalPositionEncoding(), (2, 5, 7, 7)),
        (LearnedPositionEncoding(), (2, 7, 5)),
        (LearnedPositionEncoding(name="position"), (2, 5, 7, 6)),
        (RelativePositionBias(3, (3, 5)), (2, 3, 15, 15)),
        (RelativePositionBias(4, 2), (2, 4, 4, 4)),
    ],
)
def test_layer_contract(layer, shape, tmp_path):
    check_layer(layer, shape, tmp_path)


BAD_ARGUMENTS = [
    (lambda: sinusoids(0, 4), "length=0"),
    (lambda: sinusoids(4, -1), "features=-1"),
    (lambda: sinusoids(4, 4, base=0), "base=0 must be a number above 1"),
    (lambda: SinusoidalPositionEncoding(base=-10.0), "base=-10.0"),
    (lambda: SinusoidalPositionEncoding(base=1.0), "base=1.0"),
    (lambda: SinusoidalPositionEncoding(base=math.nan), "base=nan"),
    (lambda: RelativePositionBias(0, 7), "num_heads=0"),
    (lambda: RelativePositionBias(3, 0), "window_size=0 must be an integer of at least 1, or a pair"),
    (lambda: RelativePositionBias(3, (7, 7, 7)), r"window_size=\(7, 7, 7\)"),
    (lambda: RelativePositionBias(3, (7, 3.5)), r"window_size=\(7, 3.5\)"),
    (lambda: relative_position_index(-2), "window_size=-2"),
    (lambda: resize_positions(np.ones(5), 3), r"\(N, C\) or \(H, W, C\), got shape \(5,\)"),
    (lambda: resize_positions(np.ones((0, 5)), 3), r"got shape \(0, 5\)"),
    (lambda: resize_positions(np.ones((5, 4)), (3, 3)), r"size=\(3, 3\)"),
    (lambda: resize_positions(np.ones((5, 5, 4)), (3, 0)), r"size=\(3, 0\)"),
    (lambda: resize_relative_bias(np.ones((9, 3)), 3, 5), r"window_size=3 is \(25, num_heads\), got .* \(9, 3\)"),
    (lambda: resize_relative_bias(np.ones((9, 3)), 2, 0), "new_window_size=0"),
]


def test_bad_arguments():
    for make, message in BAD_ARGUMENTS:
        with pytest.raises(InvalidValueError, match=message):
            make()


@pytest.mark.parametrize("layer", [SinusoidalPositionEncoding, LearnedPositionEncoding])
def test_inputs_without_known_positions(layer):
    for shape, message in (
        ((8,), r"tokens .* or maps .* got shape \(None, 8\)"),
        ((None, 8), r"got shape \(None, None, 8\); build with an input_shape"),
        ((5, None), r"got shape \(None, 5, None\)"),
        ((5, None, 8), "known height and width"),
        ((2, 5, 7, 8), "tokens .* or maps"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            layer()(keras.Input(shape))


def test_one_channel_cannot_hold_a_row_and_a_column():
    with pytest.raises(InvalidValueError, match=r"at least 2 channels, got shape \(2, 5, 7, 1\)"):
        SinusoidalPositionEncoding()(feature_map(2, 5, 7, 1))
    assert SinusoidalPositionEncoding()(feature_map(2, 7, 1)).shape == (2, 7, 1)  # tokens have one coordinate


def test_logits_of_another_shape():
    layer = built(RelativePositionBias(3, (3, 5)), (2, 3, 15, 15))
    for shape in ((2, 1, 15, 15), (2, 3, 15, 14), (2, 3, 1, 15), (15, 15)):
        logits = feature_map(*shape)
        with pytest.raises(InvalidValueError, match=r"take logits \(\.\.\., 3, 15, 15\), got shape"):
            RelativePositionBias(3, (3, 5))(logits)
        with pytest.raises(ValueError, match="incompatible"):  # a built layer must not broadcast
            layer(logits)


def test_a_built_table_keeps_its_size():
    layer = built(LearnedPositionEncoding(), (None, 5, 7, 6))
    with pytest.raises(ValueError, match="incompatible"):
        layer(feature_map(2, 1, 7, 6))


def test_tables_that_do_not_fit():
    with pytest.raises(InvalidValueError, match="has no table yet"):
        LearnedPositionEncoding().assign_resized(np.ones((7, 5)))
    with pytest.raises(InvalidValueError, match="has no table yet"):
        RelativePositionBias(3, 2).assign_resized(np.ones((9, 3)), 2)
    learned = built(LearnedPositionEncoding(), (None, 7, 5))
    for shape in ((7, 6), (7, 7, 5)):
        with pytest.raises(InvalidValueError, match=r"cannot be resized to \(7, 5\)"):
            learned.assign_resized(np.ones(shape))
    with pytest.raises(InvalidValueError, match="the table has 4 heads, not 3"):
        built(RelativePositionBias(3, 3), (None, 3, 9, 9)).assign_resized(np.ones((9, 4)), 2)
