"""Fake quantization: the same rounding as the integer file, at the same places, learnt through and taken out again."""

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, feature_map, pixels, randomise, weights_of, weights_without_gradient
from keras import layers

import kzoo
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.surgery.fake_quantization import (
    FakeQuantize,
    FakeQuantizedWeights,
    insert_fake_quantization,
    remove_fake_quantization,
    round_kernel,
)

SHAPE = (7, 5, 6)


def rounded_by_hand(channel: np.ndarray, bits: int) -> np.ndarray:
    """One group of weights with a common step, weight by weight."""
    levels = 2 ** (bits - 1) - 1
    step = max(abs(float(weight)) for weight in channel.ravel()) / levels
    return np.array([round(float(weight) / step) * step for weight in channel.ravel()]).reshape(channel.shape)


# layer -> how its kernel falls into (channels, weights of a channel)
KERNELS = {
    "conv": (layers.Conv2D(4, 3), lambda k: k.reshape(-1, 4).T),
    "grouped": (layers.Conv2D(4, 3, groups=2), lambda k: k.reshape(-1, 4).T),
    "dense": (layers.Dense(5), lambda k: k.T),
    "depthwise": (layers.DepthwiseConv2D(3, depth_multiplier=2), lambda k: k.reshape(9, 12).T),
    "transpose": (layers.Conv2DTranspose(4, 2), lambda k: k.transpose(2, 0, 1, 3).reshape(4, -1)),
}


@pytest.mark.quick
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", KERNELS)
def test_kernels_are_rounded_like_a_loop_does(kind, bits, per_channel):
    made, by_channel = KERNELS[kind]
    layer = type(made).from_config(made.get_config())
    layer.build((None, *SHAPE))
    randomise(layer)
    ours = by_channel(np.array(round_kernel(layer, bits, per_channel)))
    kernel = by_channel(np.array(layer.kernel))
    expected = (
        np.stack([rounded_by_hand(row, bits) for row in kernel]) if per_channel else rounded_by_hand(kernel, bits)
    )
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert np.abs(ours - kernel).max() > 1e-4  # it does round


def test_a_kernel_of_zeros_stays():
    layer = layers.Dense(3, kernel_initializer="zeros")
    layer.build((None, 2))
    np.testing.assert_array_equal(round_kernel(layer, 8, True), np.zeros((2, 3)))


def rounded_map_by_hand(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """What an int8 tensor of that range holds."""
    step = (high - low) / 255
    zero = round(-128 - low / step)
    return (np.clip(np.rint(x / step) + zero, -128, 127) - zero) * step


def test_range_is_a_moving_average_over_images_and_steps():
    layer = FakeQuantize(momentum=0.75)
    steps = [feature_map(3, 4, 5, seed=seed) * scale for seed, scale in ((1, 1), (2, 3), (3, 2))]
    np.testing.assert_array_equal(layer(steps[0]), steps[0])  # nothing seen yet
    low = high = None
    for x in steps:
        y = layer(x, training=True)
        least, largest = np.mean([image.min() for image in x]), np.mean([image.max() for image in x])
        low, high = (least, largest) if low is None else (0.75 * low + 0.25 * least, 0.75 * high + 0.25 * largest)
        np.testing.assert_allclose([layer.minimum, layer.maximum], [low, high], rtol=1e-5)
        np.testing.assert_allclose(y, rounded_map_by_hand(x, low, high), atol=1e-5)
    np.testing.assert_allclose(layer(10 * steps[0]), rounded_map_by_hand(10 * steps[0], low, high), atol=1e-5)
    np.testing.assert_allclose([layer.minimum, layer.maximum], [low, high], rtol=1e-5)  # frozen at inference


@pytest.mark.parametrize("sign", [1, -1])
def test_zero_is_in_the_range_and_exact(sign):
    layer = FakeQuantize()
    x = sign * (np.abs(feature_map(2, 50)) + 1)
    layer(x, training=True)
    assert layer(np.zeros((1, 50)))[0, 0] == 0
    assert (layer.minimum if sign == 1 else layer.maximum) == 0


def test_a_map_of_zeros_passes():
    layer = FakeQuantize()
    np.testing.assert_array_equal(layer(np.zeros((2, 3)), training=True), np.zeros((2, 3)))
    assert np.isfinite(np.array(layer(feature_map(2, 3)))).all()


def test_gradient_passes_inside_the_range_only():
    import tensorflow as tf

    layer = FakeQuantize()
    layer(np.array([[-1.0, 1.0]]), training=True)
    x = tf.constant([[-2.0, -0.3, 0.7, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(layer(x) * [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(tape.gradient(y, x), [[0, 2, 3, 0]])


def small(head=None) -> keras.Model:
    """A folded residual network of five convolutions."""
    model = kzoo.build("cifar_resnet20", depths=(1, 1), widths=(4, 8), classifier_activation=head)
    return kzoo.fold_batch_norm(randomise(model))


def trained(model: keras.Model, images: np.ndarray, **options) -> keras.Model:
    """Fake-quantized, with its ranges seen and its kernels moved."""
    model = insert_fake_quantization(model, **options)
    for layer in model.layers:
        if isinstance(layer, FakeQuantizedWeights):
            layer.layer.kernel.assign(layer.layer.kernel * 1.01)
    for batch in np.split(images, 4):
        model(batch, training=True)
    return model


@pytest.mark.parametrize(("precision", "per_channel"), [("int8", True), ("int4", False)])
def test_the_file_computes_what_was_trained(precision, per_channel, tmp_path):
    images = pixels(64, 32, 32, 3)
    original = small()
    before = weights_of(original)
    model = trained(original, images, precision=precision, per_channel=per_channel)
    plain = remove_fake_quantization(model)
    assert [layer.name for layer in plain.layers] == [layer.name for layer in original.layers]
    assert [type(layer) for layer in plain.layers] == [type(layer) for layer in original.layers]
    assert_weights_are(original, before)

    kzoo.export(plain, tmp_path / "model.tflite", precision="int8", calibration=images)
    lite = LiteRTModel(tmp_path / "model.tflite")
    step, _ = lite.output["quantization"]
    expected = np.array(model(images))
    # ranges are averaged over other images, so that a rounding may fall to the other side
    outputs = lite.predict(images)
    lowest, highest = expected.min(), expected.max()  # training cuts off what is beyond, and the file does not
    inside = (lowest < expected) & (expected < highest)
    assert inside.mean() > 0.8
    assert np.abs(outputs - expected)[inside].max() <= 3 * step
    assert outputs[expected == lowest].max() <= lowest + 3 * step
    assert outputs[expected == highest].min() >= highest - 3 * step
    assert np.abs(np.array(original(images)) - expected).max() > 8 * step


def test_removed_kernels_lie_on_their_grid_and_stay_there():
    model = trained(small(), pixels(16, 32, 32, 3), precision="int4", per_channel=False)
    plain = remove_fake_quantization(model)
    for layer in model.layers:
        if isinstance(layer, FakeQuantizedWeights):
            bits = 8 if isinstance(layer.layer, layers.Dense) else 4
            kernel, bias = plain.get_layer(layer.name).get_weights()
            np.testing.assert_allclose(kernel, rounded_by_hand(np.array(layer.layer.kernel), bits), atol=1e-6)
            np.testing.assert_array_equal(bias, layer.layer.bias)
            again = np.array(round_kernel(plain.get_layer(layer.name), bits, False))
            np.testing.assert_allclose(again, kernel, atol=1e-6)
    x = pixels(3, 32, 32, 3)
    weights_only = insert_fake_quantization(plain, "int4", per_channel=False)  # no range of a map is set yet
    np.testing.assert_allclose(weights_only(x), plain(x), atol=1e-5)


def test_rounds_where_the_integer_file_does(tmp_path):
    """As many scales in the file as layers that round, in the same order, and of the same size."""
    images = pixels(32, 32, 32, 3)
    model = trained(small(), images)
    kzoo.export(remove_fake_quantization(model), tmp_path / "model.tflite", precision="int8", calibration=images)
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = Interpreter(
        str(tmp_path / "model.tflite"),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    tensors = {tensor["index"]: tensor["quantization"][0] for tensor in plain.get_tensor_details()}
    ops = [(op["op_name"], tensors[op["outputs"][0]]) for op in plain._get_ops_details()]
    rounding = [scale for name, scale in ops if name not in ("PAD", "MUL")]  # Rescaling may be a MUL and an ADD
    ours = [(layer.maximum - layer.minimum) / 255 for layer in model.layers if isinstance(layer, FakeQuantize)]
    np.testing.assert_allclose(sorted(ours), sorted(rounding), rtol=0.1)


def everything(x):
    """Every kind of place: fused or not, shared scales, plain operations, a layer called twice."""
    conv = layers.Conv2D(6, 3, padding="same", name="conv")
    y = layers.ReLU(name="fused")(conv(x))
    y = layers.MaxPooling2D(2, padding="same", name="pool")(y)
    y = conv(y)  # read twice, so the rectifier is an op of its own
    y = layers.Add(name="add")([layers.Activation("relu", name="unfused")(y), y])
    y = layers.Activation("relu6", name="add_relu6")(y)
    y = layers.Concatenate(name="concat")([y, keras.ops.multiply(y, 2.0)])
    y = layers.Conv2D(4, 1, activation="relu", name="inside")(y)
    y = layers.LeakyReLU(name="leaky")(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y))
    y = layers.GlobalAveragePooling2D(name="mean")(layers.Dropout(0.1, name="dropout")(y))
    return layers.Activation("softmax", name="softmax")(layers.Dense(3, name="dense")(y))


def test_every_kind_of_place():
    inputs = keras.Input(SHAPE)
    model = insert_fake_quantization(keras.Model(inputs, everything(inputs)))
    rounding = {layer.name.removesuffix("_quantize") for layer in model.layers if isinstance(layer, FakeQuantize)}
    product = next(layer.name for layer in model.layers if layer.name.startswith("multiply_") and "_q" in layer.name)
    assert rounding == {
        *("fused", "conv_quantize2", "unfused", "add_relu6", "concat", product.removesuffix("_quantize")),
        *("inside", "depthwise", "leaky", "mean", "dense"),
    }
    wrapped = {layer.name for layer in model.layers if isinstance(layer, FakeQuantizedWeights)}
    assert wrapped == {"conv", "inside", "depthwise", "dense"}


@pytest.mark.parametrize("options", [dict(), dict(precision="int4_weights", per_channel=False)])
def test_gradients_reach_every_weight(options):
    inputs = keras.Input(SHAPE)
    model = randomise(keras.Model(inputs, everything(inputs)))
    assert weights_without_gradient(insert_fake_quantization(model, **options), feature_map(8, *SHAPE)) == []


def test_learns_under_xla():
    inputs = keras.Input(SHAPE)
    x = layers.ReLU()(layers.Conv2D(8, 3)(inputs))
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.DepthwiseConv2D(3)(x)))
    images = feature_map(64, *SHAPE)
    labels = (images.mean(axis=(1, 2, 3)) > 0).astype(int)
    model = insert_fake_quantization(keras.Model(inputs, x), "int4")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=True)
    losses = model.fit(images, labels, batch_size=32, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_gradient_of_a_rounded_kernel_is_that_of_the_convolution_it_stands_in():
    import tensorflow as tf

    inputs = keras.Input(SHAPE)
    plain = randomise(keras.Model(inputs, layers.Conv2D(4, 3, name="conv")(inputs)))
    model = insert_fake_quantization(plain, "int4")
    x = feature_map(2, *SHAPE)

    def gradient(of):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(of(x) * feature_map(2, 5, 3, 4, seed=2))
        return tape.gradient(loss, [variable.value for variable in of.trainable_variables])

    for ours, expected in zip(gradient(model), gradient(plain), strict=True):  # linear: it does not see the rounding
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_saves_and_keeps_names_taps_and_dtype(tmp_path):
    images = pixels(16, 32, 32, 3)
    model = trained(small(), images)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))
    assert_weights_are(remove_fake_quantization(loaded), weights_of(remove_fake_quantization(model)))
    taps = kzoo.pyramid(model, ["p0", "p1"])(images)
    assert [tuple(value.shape) for value in taps.values()] == [(16, 32, 32, 4), (16, 16, 16, 8)]
    wrapper = loaded.get_layer("stem_conv")
    assert wrapper.get_config() == type(wrapper).from_config(wrapper.get_config()).get_config()
    rounding = loaded.get_layer("stem_relu_quantize")
    assert set(rounding.get_config()) == {"name", "trainable", "dtype", "momentum"}


def with_norm(x):
    return layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3)(x))


def with_a_model_inside(x):
    inner = keras.Input(SHAPE)
    return keras.Model(inner, layers.Conv2D(4, 3)(inner), name="inner")(x)


REFUSALS = [
    (with_norm, r"has batch normalisation \(norm\); call kzoo.fold_batch_norm first"),
    (with_a_model_inside, "inner is a model inside"),
    (layers.ReLU(), "no linear layer at its top level; fake quantization works on Conv1D, Conv2D"),
]


@pytest.mark.parametrize(("graph", "message"), REFUSALS, ids=["norm", "inside", "no_linear"])
def test_refusals(graph, message):
    inputs = keras.Input(SHAPE)
    with pytest.raises(InvalidValueError, match=message):
        insert_fake_quantization(keras.Model(inputs, graph(inputs)))


def test_refuses_options_and_models_that_it_cannot_take():
    model = small()
    for precision in ("int3", "float16", None, 8):
        with pytest.raises(InvalidValueError, match=r"precision=.* is not accepted; use one of 'int8_weights'"):
            insert_fake_quantization(model, precision)
    with pytest.raises(InvalidValueError, match="has fake quantization already"):
        insert_fake_quantization(insert_fake_quantization(model))
    with pytest.raises(InvalidValueError, match="has no fake quantization; pass a model of insert_fake_quantization"):
        remove_fake_quantization(model)
