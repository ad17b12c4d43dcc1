"""Concatenation of maps of different sizes, padded as Torch7's nn.DepthConcat does."""

import keras
import numpy as np
import pytest
from helpers import feature_map, randomise, weights_without_gradient

from kzoo.edge.convert import convert
from kzoo.edge.runtime import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.layers.depth_concat import DepthConcat

SHAPES = {
    "one": [(5, 7, 3)],
    "equal": [(5, 7, 3), (5, 7, 2)],
    "odd and even borders": [(2, 2, 2), (5, 7, 3), (3, 4, 1), (4, 7, 2), (5, 3, 4)],
    "largest sides in two maps": [(5, 3, 2), (2, 7, 3)],
    "six": [(5 - n % 3, 7 - n, 1 + n) for n in range(6)],
    "twelve": [(5, 7 - n % 5, 1 + n % 2) for n in range(12)],
    "twenty-six": [(5 - n % 5, 7, 1) for n in range(26)],
}


def maps(shapes):
    return [feature_map(2, *shape, seed=n) for n, shape in enumerate(shapes)]


def depth_concat(arrays):
    """Every value is written to its place, offset by half the difference in size, rounded down."""
    height, width = (max(array.shape[axis] for array in arrays) for axis in (1, 2))
    y = np.zeros((len(arrays[0]), height, width, sum(array.shape[3] for array in arrays)), "float32")
    first = 0
    for array in arrays:
        for i in range(array.shape[1]):
            for j in range(array.shape[2]):
                for c in range(array.shape[3]):
                    row, column = i + (height - array.shape[1]) // 2, j + (width - array.shape[2]) // 2
                    y[:, row, column, first + c] = array[:, i, j, c]
        first += array.shape[3]
    return y


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_centred_copies(shapes):
    arrays = maps(shapes)
    layer = DepthConcat()
    y = layer(arrays)
    np.testing.assert_array_equal(y, depth_concat(arrays))  # copies are exact
    assert layer.compute_output_shape([array.shape for array in arrays]) == y.shape


def small_inception(count=7):
    """`count` branches, every second one without padding, on an image of unknown batch."""
    inputs = keras.Input((9, 13, 3))
    branches = [
        keras.layers.Conv2D(1 + n % 3, 3, padding="valid" if n % 2 else "same", name=f"branch{n}")(inputs)
        for n in range(count)
    ]
    return randomise(keras.Model(inputs, DepthConcat(name="concat")(branches)))


def test_layer_contract(tmp_path):
    """What `check_layer` asks of layers with one input."""
    config = DepthConcat(name="concat").get_config()
    assert set(config) == {"name", "trainable", "dtype"}
    assert DepthConcat.from_config(config).get_config() == config
    model = small_inception()
    x = feature_map(2, 9, 13, 3)
    assert model.output_shape == (None, 9, 13, 1 + 2 + 3 + 1 + 2 + 3 + 1)
    expected = np.array(model(x))
    model.save(tmp_path / "layer.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "layer.keras")(x), expected)
    half = DepthConcat(dtype="mixed_float16")(maps(SHAPES["six"]))
    assert half.dtype == "float16"
    assert weights_without_gradient(model, x) == []


def test_trains_under_xla():
    model = small_inception(3)
    model.compile("sgd", "mse", jit_compile=True)
    x, y = feature_map(2, 9, 13, 3), feature_map(2, 9, 13, 6)
    losses = [model.train_on_batch(x, y) for _ in range(2)]
    assert losses[1] < losses[0]


def test_one_partition_on_the_edge():
    """A concatenation of more than five maps would break it."""
    model = small_inception(7)
    y = keras.layers.Conv2D(4, 1, name="after")(model.output)  # with nothing behind it, a break would not show
    model = randomise(keras.Model(model.input, y))
    lite = LiteRTModel(convert(model))
    assert lite.xnnpack_partitions() == 1
    assert set(lite.op_histogram()) == {"CONV_2D", "PAD", "CONCATENATION"}
    x = feature_map(2, 9, 13, 3)
    np.testing.assert_allclose(lite.predict(x), np.array(model(x)), atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (keras.Input((5, 7, 3)), r"takes a list of one map or more, got shape \(None, 5, 7, 3\)"),
        ([keras.Input((5, 7, 3)), keras.Input((7, 3))], r"feature maps .* got shape \(None, 7, 3\)"),
        ([keras.Input((None, 7, 3)), keras.Input((5, 7, 3))], "needs maps of known height and width"),
        ([keras.Input((5, 7, 3), batch_size=2), keras.Input((5, 7, 3), batch_size=3)], "maps of one batch size"),
    ],
    ids=["no list", "rank", "unknown size", "batch"],
)
def test_bad_inputs(inputs, message):
    with pytest.raises(InvalidValueError, match=message):
        DepthConcat()(inputs)


def test_an_empty_list():
    with pytest.raises(InvalidValueError, match="a list of one map or more"):
        DepthConcat().compute_output_shape([])


def test_a_known_batch_size_among_unknown_ones():
    shapes = [(None, 5, 7, 3), (2, 3, 3, 1)]
    assert DepthConcat().compute_output_shape(shapes) == (2, 5, 7, 4)
