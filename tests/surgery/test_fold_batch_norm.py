"""Folding: equal outputs for every linear layer, and every refusal by name with its reason."""

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, feature_map, pixels, randomise, relative_error, weights_of
from keras import layers

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.graph import count_macs
from kzoo.layers import CBAM
from kzoo.surgery import plan_folding

SHAPE = (7, 5, 6)


def norms(model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def assert_equal_outputs(folded, model, x) -> None:
    ours, theirs = (keras.tree.flatten(m(x)) for m in (folded, model))
    for actual, expected in zip(ours, theirs, strict=True):
        assert relative_error(actual, expected) < 1e-5


LINEAR = {
    "conv": lambda: layers.Conv2D(8, 3, padding="same", use_bias=False),
    "conv_bias": lambda: layers.Conv2D(8, 3),
    "conv_grouped": lambda: layers.Conv2D(8, 3, groups=2),
    "conv_dilated": lambda: layers.Conv2D(8, 3, dilation_rate=2, padding="same", use_bias=False),
    "conv_strided": lambda: layers.Conv2D(8, (3, 1), strides=2, padding="same"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, use_bias=False),
    "depthwise_multiplier": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "separable": lambda: layers.SeparableConv2D(8, 3, depth_multiplier=2, padding="same"),
    "separable_no_bias": lambda: layers.SeparableConv2D(8, 3, use_bias=False),
    "transpose": lambda: layers.Conv2DTranspose(4, 3, strides=2),
    "transpose_no_bias": lambda: layers.Conv2DTranspose(8, 2, strides=2, padding="same", use_bias=False),
    "dense": lambda: layers.Dense(8),
    "dense_no_bias": lambda: layers.Dense(8, use_bias=False),
    "conv1d": lambda: layers.Conv1D(8, 3, padding="causal", dilation_rate=2),
    "depthwise1d": lambda: layers.DepthwiseConv1D(3, depth_multiplier=2, use_bias=False),
    "separable1d": lambda: layers.SeparableConv1D(8, 3, depth_multiplier=2),
    "transpose1d": lambda: layers.Conv1DTranspose(4, 3, strides=2),
    "conv3d": lambda: layers.Conv3D(8, 3, padding="same", use_bias=False),
    "transpose3d": lambda: layers.Conv3DTranspose(4, 2, strides=2),
}
NO_BIAS = (
    "conv",
    "conv_dilated",
    "depthwise",
    "separable_no_bias",
    "transpose_no_bias",
    "dense_no_bias",
    "depthwise1d",
    "conv3d",
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": False, "center": False},
        pytest.param({"scale": False}, marks=pytest.mark.slow),
        pytest.param({"center": False}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", LINEAR)
def test_every_linear_layer(kind, options):
    shape = {"1d": SHAPE[1:], "3d": (4, *SHAPE)}.get(kind[-2:], SHAPE)
    inputs = keras.Input(shape)
    linear = LINEAR[kind]()
    y = layers.ReLU()(layers.BatchNormalization(epsilon=0.1, name="norm", **options)(linear(inputs)))
    model = randomise(keras.Model(inputs, y))
    before = weights_of(model)
    plan = plan_folding(model)
    assert (plan.folds, plan.kept, plan.inside) == ({"norm": linear.name}, {}, [])
    folded = kzoo.fold_batch_norm(model)
    assert norms(folded) == []
    assert len(folded.weights) == (3 if "separable" in kind else 2)
    assert_equal_outputs(folded, model, feature_map(2, *shape))
    assert_weights_are(model, before)
    assert norms(model) == ["norm"]
    assert linear.use_bias == (kind not in NO_BIAS)


def test_dense_on_vectors():
    inputs = keras.Input((6,))
    model = randomise(keras.Model(inputs, layers.BatchNormalization()(layers.Dense(4)(inputs))))
    folded = kzoo.fold_batch_norm(model)
    assert norms(folded) == []
    assert_equal_outputs(folded, model, feature_map(3, 6))


def conv(name="linear", **options):
    return layers.Conv2D(6, 3, padding="same", name=name, **options)


def test_a_pair_that_is_called_together_folds():
    linear, norm = conv(), layers.BatchNormalization(name="norm")
    inputs = keras.Input(SHAPE)
    large, small = (norm(linear(x)) for x in (inputs, layers.MaxPooling2D(2)(inputs)))
    model = randomise(keras.Model(inputs, [layers.ReLU()(large), small]))
    folded = kzoo.fold_batch_norm(model)
    assert norms(folded) == []
    assert len(folded.weights) == 2
    images = feature_map(2, *SHAPE)
    for actual, expected in zip(folded(images), model(images), strict=True):
        assert relative_error(actual, expected) < 1e-5


def test_models_without_a_graph():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(InvalidValueError, match="subclassed model; only functional models"):
        kzoo.fold_batch_norm(Subclassed())
    with pytest.raises(InvalidValueError, match=r"Sequential model without an input; add keras\.Input or build it"):
        kzoo.fold_batch_norm(keras.Sequential([conv(), layers.BatchNormalization()]))


def test_a_model_that_computes_something_else_than_its_graph():
    class Doubled(keras.Model):
        def call(self, x, training=None):
            return 2 * super().call(x, training=training)

    inputs = keras.Input(SHAPE)
    with pytest.raises(InvalidValueError, match="subclassed model; only functional models"):
        kzoo.fold_batch_norm(Doubled(inputs, layers.BatchNormalization()(conv()(inputs))))


def test_a_functional_model_of_a_class_of_its_own():
    class Net(keras.Model):
        def __init__(self, width):
            inputs = keras.Input(SHAPE, name="image")
            x = layers.BatchNormalization(name="norm")(layers.Dense(width, name="linear")(inputs))
            super().__init__(inputs, x, name="net")

    inputs = keras.Input(SHAPE)
    for model, name in ((Net(4), "linear"), (keras.Model(inputs, Net(4)(inputs)), "net/linear")):
        randomise(model)
        assert list(plan_folding(model).folds.values()) == [name]
        folded = kzoo.fold_batch_norm(model)
        assert len(folded.weights) == 2
        assert_equal_outputs(folded, model, feature_map(2, *SHAPE))


def test_a_layer_that_cannot_be_copied():
    class Stubborn(layers.Layer):
        def __init__(self, factor):
            super().__init__(name="stubborn")
            self.factor = factor

        def call(self, x):
            return x * self.factor

        def get_config(self):
            return {}

    inputs = keras.Input(SHAPE)
    with pytest.raises(InvalidValueError, match="stubborn is a Stubborn that its get_config"):
        kzoo.fold_batch_norm(keras.Model(inputs, layers.BatchNormalization()(conv()(Stubborn(2.0)(inputs)))))


def test_sequential():
    model = randomise(keras.Sequential([keras.Input(SHAPE, name="image"), conv(), layers.BatchNormalization()]))
    before = weights_of(model)
    folded = kzoo.fold_batch_norm(model)
    assert [layer.name for layer in folded.layers] == ["image", "linear"]
    assert folded.name == model.name
    assert_equal_outputs(folded, model, feature_map(2, *SHAPE))
    assert_weights_are(model, before)


def branches(inputs):
    """Two branches, one norm that folds in each, one after the addition that stays."""
    left = layers.BatchNormalization(name="left_norm")(conv("left")(inputs))
    right = layers.BatchNormalization(name="right_norm")(conv("right", use_bias=False)(inputs))
    total = layers.BatchNormalization(name="late_norm")(layers.Add(name="sum")([left, right]))
    return left, layers.ReLU()(total)


@pytest.mark.quick
@pytest.mark.parametrize("structure", [list, lambda pair: dict(zip(("left", "all"), pair, strict=True))])
def test_branches_and_several_outputs(structure):
    inputs = keras.Input(SHAPE)
    model = randomise(keras.Model(inputs, structure(branches(inputs))))
    assert plan_folding(model).folds == {"left_norm": "left", "right_norm": "right"}
    folded = kzoo.fold_batch_norm(model)
    assert norms(folded) == ["late_norm"]
    x = feature_map(2, *SHAPE)
    assert_equal_outputs(folded, model, x)
    assert type(folded(x)) is type(model(x))
    if isinstance(model(x), dict):
        assert folded(x).keys() == model(x).keys()
        assert relative_error(folded(x)["left"], model(x)["left"]) < 1e-5


def test_several_inputs():
    first, second = keras.Input(SHAPE, name="first"), keras.Input(SHAPE, name="second")
    y = layers.Concatenate()([layers.BatchNormalization()(conv(name)(x)) for name, x in (("a", first), ("b", second))])
    model = randomise(keras.Model({"first": first, "second": second}, y))
    folded = kzoo.fold_batch_norm(model)
    assert norms(folded) == []
    assert_equal_outputs(folded, model, {"first": feature_map(2, *SHAPE), "second": feature_map(2, *SHAPE, seed=2)})


def test_cbam_folds_itself():
    inputs = keras.Input(SHAPE)
    y = layers.BatchNormalization(name="norm")(conv()(inputs))
    model = randomise(keras.Model(inputs, CBAM(2, 3, name="attention")(y)))
    plan = plan_folding(model)
    assert (plan.inside, plan.folds) == (["attention"], {"norm": "linear"})
    folded = kzoo.fold_batch_norm(model)
    assert [v.path for v in folded.variables if "norm" in v.path] == []
    assert not folded.get_layer("attention").spatial.use_batch_norm
    assert model.get_layer("attention").spatial.use_batch_norm
    assert_equal_outputs(folded, model, feature_map(2, *SHAPE))


def test_folded_models_save_and_keep_names_and_taps(tmp_path):
    model = randomise(kzoo.build("cifar_resnet20_cbam", depths=(1, 1), widths=(4, 8)))
    folded = kzoo.fold_batch_norm(model)
    gone = {layer.name for layer in model.layers} - {layer.name for layer in folded.layers}
    assert gone == set(norms(model))
    folded.save(tmp_path / "folded.keras")
    images = pixels(2, 32, 32, 3)
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "folded.keras")(images), folded(images))
    levels = ["p0", "p1"]
    assert_equal_outputs(kzoo.pyramid(folded, levels), kzoo.pyramid(model, levels), images)


def test_mixed_precision_folds_in_full():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = randomise(kzoo.build("cifar_resnet20", depths=(1, 1), widths=(4, 8)))
        folded = kzoo.fold_batch_norm(model)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {variable.dtype for variable in folded.variables} == {"float32"}
    assert folded.get_layer("stem_conv").compute_dtype == "float16"
    images = pixels(2, 32, 32, 3)
    assert relative_error(folded(images), model(images)) < 1e-2  # the rounding of float16, 5e-4, in other places


def test_folding_twice_changes_nothing():
    model = randomise(kzoo.build("cifar_resnet20", depths=(1, 1), widths=(4, 8)))
    once = kzoo.fold_batch_norm(model)
    twice = kzoo.fold_batch_norm(once)
    assert_weights_are(twice, weights_of(once))


class Centred(keras.layers.Conv2D):
    """A convolution that computes something else than its class says."""

    def call(self, x):
        return super().call(x - keras.ops.mean(x, axis=(1, 2), keepdims=True)) * 2


def test_subclasses_are_not_taken_for_what_they_inherit_from():
    inputs = keras.Input((5, 7, 3))
    x = keras.layers.BatchNormalization(name="bn")(Centred(4, 3, name="conv")(inputs))
    model = randomise(keras.Model(inputs, x))
    images = feature_map(2, 5, 7, 3)
    assert "Centred" in plan_folding(model).kept["bn"]
    np.testing.assert_array_equal(kzoo.fold_batch_norm(model)(images), model(images))


def test_operations_and_lambdas_in_the_graph():
    inputs = keras.Input((5, 7, 3))
    x = keras.layers.BatchNormalization(name="bn")(keras.layers.Conv2D(4, 3, padding="same", name="conv")(inputs))
    x = x + keras.ops.relu(x) * 2
    x = keras.layers.BatchNormalization(name="bn_after_sum")(x)
    x = keras.layers.Lambda(lambda t: t * 3, name="triple")(x)
    model = randomise(keras.Model(inputs, x))
    images = feature_map(2, 5, 7, 3)
    plan = plan_folding(model)
    assert plan.folds == {"bn": "conv"}
    assert "add before it is the plain operation Add" in plan.kept["bn_after_sum"]
    assert relative_error(kzoo.fold_batch_norm(model)(images), model(images)) < 1e-5
    assert count_macs(model) == 5 * 7 * 9 * 3 * 4
