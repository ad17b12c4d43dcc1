"""Fused batch normalisation: Keras' numbers, Keras' layers, in every model that `kzoo.build` returns."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import feature_map, pixels, randomise, weights_of

import kzoo
from kzoo.registry import lookup

STEPS = 3
TINY = dict(depths=(1, 1), widths=(4, 8))


def fused(**options) -> keras.layers.BatchNormalization:
    return kzoo.use_fused_batch_norm(keras.layers.BatchNormalization(**options))


def run(layer, maps, how="graph", **arguments) -> list[np.ndarray]:
    """Outputs and gradients of training steps on `maps`, and then the layer's weights, all in float32."""

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(layer(x, training=True, **arguments), "float32")
            loss = tf.reduce_sum(y * tf.cos(tf.reshape(tf.range(tf.size(y), dtype="float32"), tf.shape(y))))
        return [y, *tape.gradient(loss, [x, *layer.trainable_variables])]

    step = step if how == "eager" else tf.function(step, jit_compile=how == "xla")
    arrays = [array for x in maps for array in step(tf.constant(x))]
    return [np.asarray(tf.cast(array, "float32")) for array in arrays] + layer.get_weights()


def assert_same(ours: keras.Layer, maps, how="graph", tolerance=1e-5, **arguments) -> None:
    """`ours` trains as a plain layer with its config and weights does."""
    ours.build(maps[0].shape)
    randomise(ours)
    plain = type(ours).from_config(ours.get_config())
    plain.build(maps[0].shape)
    plain.set_weights(ours.get_weights())
    for got, expected in zip(run(ours, maps, how, **arguments), run(plain, maps, how, **arguments), strict=True):
        scale = max(1, np.abs(expected).max())
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)


def fused_operations(layer, x, jit_compile=False, **arguments) -> int:
    """How often a training step of `layer` calls TensorFlow's operation."""
    step = tf.function(lambda x: layer(x, **{"training": True} | arguments), jit_compile=jit_compile)
    graph = step.get_concrete_function(tf.constant(x)).graph
    return sum(operation.type == "FusedBatchNormV3" for operation in graph.get_operations())


def maps(*shape, mean=0.0) -> list[np.ndarray]:
    return [feature_map(*shape) * (step + 1) + mean for step in range(STEPS)]


@pytest.mark.parametrize("how", ["eager", "graph"])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 5, 7, 6), {}),
        ((3, 5, 7, 6), dict(center=False, momentum=0.3)),
        ((3, 5, 7, 6), dict(scale=False, epsilon=1e-6, axis=3)),
        ((2, 1, 1, 3), dict(center=False, scale=False)),
        ((1, 1, 1, 4), {}),  # one value, of which N / (N - 1) is no number
    ],
)
def test_outputs_gradients_and_statistics_are_those_of_keras(shape, options, how):
    assert_same(fused(**options), maps(*shape), how)


@pytest.mark.parametrize("how", ["graph", "xla"])
def test_a_large_mean_costs_no_more_digits_than_in_keras(how):
    # float32 has 7 digits: of deviations from 300 five are left; a mean of squares, 90000, would leave two
    assert_same(fused(), maps(3, 5, 7, 6, mean=300), how, tolerance=2e-4)


# one rounding of the outputs and gradients, of 11 or 8 bits, may fall to the other side
@pytest.mark.parametrize(("policy", "tolerance"), [("mixed_float16", 2**-10), ("mixed_bfloat16", 2**-7)])
def test_half_precision_keeps_statistics_in_float32(policy, tolerance):
    layer = fused(dtype=policy)
    assert_same(layer, maps(3, 5, 7, 6, mean=5), tolerance=tolerance)
    plain = keras.layers.BatchNormalization.from_config(layer.get_config())
    plain.build((3, 5, 7, 6))
    plain.set_weights(layer.get_weights())
    for each in (layer, plain):
        each(maps(3, 5, 7, 6, mean=5)[0], training=True)
    np.testing.assert_allclose(layer.moving_variance, plain.moving_variance, rtol=1e-5)
    assert layer(maps(3, 5, 7, 6)[0], training=True).dtype == policy.removeprefix("mixed_")


def test_the_size_of_a_batch_may_be_unknown():
    layer, plain = fused(), keras.layers.BatchNormalization()
    for each in (layer, plain):
        each.build((None, None, None, 3))
        step = tf.function(
            lambda x, each=each: each(x, training=True), input_signature=[tf.TensorSpec((None, None, None, 3))]
        )
        for shape in ((2, 3, 5, 3), (1, 4, 2, 3)):
            step(feature_map(*shape))
    np.testing.assert_allclose(layer.moving_variance, plain.moving_variance, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "options", "arguments"),
    [
        ((4, 6), {}, {}),
        ((3, 5, 6), {}, {}),
        ((2, 3, 4, 5, 6), {}, {}),
        ((3, 5, 7, 6), dict(axis=1), {}),
        ((3, 5, 7, 6), dict(synchronized=True), {}),
        ((3, 5, 7, 6), dict(renorm=True), {}),
        ((3, 5, 7, 6), dict(dtype="float64"), {}),
        ((3, 5, 7, 6), {}, dict(mask=feature_map(3, 5, 7) > 0)),
    ],
    ids=str,
)
def test_what_the_operation_does_not_do_is_left_to_keras(shape, options, arguments):
    layer = fused(**options)
    assert_same(layer, maps(*shape), **arguments)
    assert fused_operations(layer, feature_map(*shape), **arguments) == 0


def test_only_training_is_fused():
    layer, x = fused(), feature_map(3, 5, 7, 6)
    assert fused_operations(layer, x) == 1
    assert fused_operations(layer, x, jit_compile=True) == 0
    assert fused_operations(layer, x, training=False) == 0
    assert fused_operations(layer, x, training=None) == 0
    before = layer.get_weights()
    layer.trainable = False
    assert fused_operations(layer, x) == 0
    np.testing.assert_allclose(layer(x, training=True), layer(x, training=False))
    for weight, old in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def small(name="cifar_resnet20", **options) -> keras.Model:
    entry = lookup(name)
    size = (entry.narrow_size, entry.narrow_size, 3)
    return kzoo.build(name, input_shape=size, num_classes=4, **entry.narrow | options)


def norms(model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.mark.parametrize("name", ["cifar_resnet20_cbam", "resnet50_nl"])
def test_a_built_model_trains_in_the_operation_and_consists_of_plain_layers(name):
    model = small(name)
    assert {type(layer) for layer in norms(model)} == {keras.layers.BatchNormalization}
    assert model.to_json() == keras.models.clone_model(model).to_json()
    assert fused_operations(model, pixels(2, *model.input.shape[1:])) == len(norms(model)) > 0


def one_norm() -> keras.Model:
    """The least that trains: XLA takes long to compile a model of the zoo."""
    layers = keras.layers
    conv, norm, pool = layers.Conv2D(4, 3), layers.BatchNormalization(), layers.GlobalAveragePooling2D()
    return kzoo.use_fused_batch_norm(
        keras.Sequential([keras.Input((32, 32, 3)), conv, norm, layers.ReLU(), pool, layers.Dense(4, "softmax")])
    )


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: small(**TINY), dict()),
        (one_norm, dict(jit_compile=True)),
    ],
    ids=["graph", "xla"],
)
def test_fit_gives_the_losses_weights_and_statistics_of_keras(make, options):
    images, labels = pixels(14, 32, 32, 3), np.arange(14) % 4
    results = []
    for copied in (lambda model: model, keras.models.clone_model):
        model = randomise(copied(make()))
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True), "sparse_categorical_crossentropy", **options
        )
        history = model.fit(images, labels, batch_size=5, epochs=1, shuffle=False, verbose=0)  # 5, 5 and 4
        results.append((history.history["loss"], weights_of(model)))
    (ours, our_weights), (theirs, their_weights) = results
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)  # the steps enlarge what rounding differs in
    for got, expected in zip(our_weights, their_weights, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3 * max(1, np.abs(expected).max()))


def test_copies_are_plain_layers_until_they_are_asked_to_train_in_the_operation(tmp_path):
    model, x = small("cifar_resnet20_cbam", **TINY), pixels(2, 32, 32, 3)
    model.save(tmp_path / "model.keras")
    copies = [keras.models.clone_model(model), keras.saving.load_model(tmp_path / "model.keras"), copy.deepcopy(model)]
    for each in copies:
        assert fused_operations(each, x) == 0
        nested = keras.Sequential([keras.Input((32, 32, 3)), each])
        assert kzoo.use_fused_batch_norm(nested) is nested
        assert fused_operations(nested, x) == len(norms(model))


def test_layers_of_other_classes_are_left_alone():
    class Own(keras.layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return -super().call(inputs, training=training, mask=mask)

    layer, x = Own(), feature_map(3, 5, 7, 6)
    np.testing.assert_allclose(
        kzoo.use_fused_batch_norm(layer)(x, training=True), -keras.layers.BatchNormalization()(x, training=True)
    )
    assert fused_operations(layer, x) == 0
