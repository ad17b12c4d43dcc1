"""Transfer: what is frozen stays to the bit, new heads, features, and two models of a kind in one graph."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise, relative_error, slow_but

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.images import Pixels
from kzoo.models.inception import loss_weights
from kzoo.registry import lookup

SIZE = (37, 33)
# name -> overrides that make it small; size of its images where it needs another
CLASSIFIERS = {
    "resnet18_cbam": dict(depths=(1, 1), widths=(8, 16)),
    "resnet50_v2_se": dict(depths=(1, 2), widths=(4, 8)),
    "vgg11_bn": dict(depths=(1, 2), widths=(4, 8), map_size=None, dense_units=8),
    "googlenet_bn": dict(modules=("3a", "4a", "4d", "5a"), width=0.125, input_shape=(67, 65, 3)),
    "inception_v3_cbam": dict(modules=("5b", "6a", "6b", "7a", "7b"), width=0.125, input_shape=(79, 77, 3)),
    "residual_attention56": dict(modules=(0, 0, 1), widths=(4, 4, 6, 8), trunk_units=1, last_units=1),
    "swin_tiny": dict(depths=(1, 1), num_heads=(1, 2), width=8, drop_path_rate=0.5),
    "nat_small": dict(depths=(1, 2), num_heads=(1, 2), width=8, kernel_size=3, drop_path_rate=0.5),
    "simple_cnn": dict(widths=(4, 8), dense_units=8),
}
EVERY = slow_but(["resnet18_cbam", "swin_tiny"], CLASSIFIERS)


def classifier(name: str, **options) -> keras.Model:
    return randomise(kzoo.build(name, **dict(input_shape=(*SIZE, 3), num_classes=5) | CLASSIFIERS[name] | options))


def state(model: keras.Model) -> dict[str, np.ndarray]:
    """Every variable by layer and path, states of random generators too."""
    return {
        f"{layer.name} {variable.path}": np.array(variable) for layer in model.layers for variable in layer.variables
    }


def fit(model: keras.Model, classes: int = 5) -> dict[str, bool]:
    """Trains two batches; whether each variable changed, by layer and path."""
    before = state(model)
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
    images = pixels(8, *model.input.shape[1:])
    model.fit(images, np.arange(8) % classes, batch_size=4, verbose=0)
    return {path: not np.array_equal(array, before[path]) for path, array in state(model).items() if path in before}


def check_frozen(changed: dict[str, bool]) -> None:
    """The head has learned, and nothing else has changed."""
    assert [path for path, has in changed.items() if has and not path.startswith("head_")] == []
    assert changed["head_dense head_dense/kernel"]
    assert changed["head_dense head_dense/bias"]


@pytest.mark.parametrize("name", EVERY)
def test_training_changes_no_bit_of_a_frozen_trunk(name, tmp_path):
    model = kzoo.freeze_backbone(classifier(name))
    check_frozen(fit(model))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    new = kzoo.freeze_backbone(kzoo.replace_head(loaded, 3))
    check_frozen(fit(new, 3))

    assert kzoo.freeze_backbone(new, frozen=False) is new
    free = classifier(name, num_classes=3)
    assert [v.path for v in new.trainable_variables] == [v.path for v in free.trainable_variables]
    assert all(inner.trainable for layer in new.layers for inner in layer._flatten_layers())


@pytest.mark.parametrize("name", EVERY)
def test_a_frozen_trunk_gives_in_training_the_maps_of_inference(name):
    """Normalisation by statistics, no stochastic depth, until it is freed; the head's dropout stays on."""
    model = kzoo.freeze_backbone(classifier(name))
    trunk, images = kzoo.backbone(model, name), pixels(4, *model.input.shape[1:])
    expected = trunk(images, training=False)

    def largest_difference():
        found = trunk(images, training=True)
        return max(float(np.abs(found[tap] - expected[tap]).max()) for tap in expected)

    assert largest_difference() == 0
    kzoo.freeze_backbone(model, frozen=False)
    assert largest_difference() > 1e-3 or name == "simple_cnn"  # which has neither in its trunk


def test_dropout_of_an_own_attention_is_off_where_it_is_frozen():
    def attention(x, name):
        x = keras.layers.SpatialDropout2D(0.5, name=f"{name}_drop")(x)
        heads = keras.layers.MultiHeadAttention(2, 4, dropout=0.5, name=name)
        return keras.layers.Reshape(x.shape[1:])(heads(*[keras.layers.Reshape((-1, x.shape[-1]))(x)] * 2))

    model = classifier("resnet18_cbam", attention=attention, input_shape=(12, 20, 3))
    trunk, images = kzoo.backbone(model, "resnet18"), pixels(2, 12, 20, 3)
    for frozen in (True, False):
        kzoo.freeze_backbone(model, frozen)
        first, second = (np.array(trunk(images, training=True)["p2"]) for _ in range(2))
        assert np.array_equal(first, second) == frozen


@pytest.mark.usefixtures("without_values")
def test_auxiliary_heads_learn_with_the_head_and_get_new_classifiers_too():
    options = dict(auxiliary=True, input_shape=(67, 65, 3), modules=("3a", "4a", "4d", "5a"), width=0.125)
    model = kzoo.freeze_backbone(kzoo.build("googlenet_bn", **options))
    learning = {layer.name.partition("_")[0] for layer in model.layers if layer.trainable and layer.weights}
    assert learning == {"auxiliary1", "auxiliary2", "head"}
    new, same = kzoo.replace_head(model, 3), kzoo.build("googlenet_bn", num_classes=3, **options)
    assert {name: each.shape[-1] for name, each in new.output.items()} == dict.fromkeys(loss_weights(model), 3)
    assert [variable.path for variable in new.weights] == [variable.path for variable in same.weights]
    assert new.get_layer("auxiliary1_dense") is model.get_layer("auxiliary1_dense")


@pytest.mark.usefixtures("without_values")
def test_what_has_no_head_of_the_zoo_cannot_be_frozen_or_get_another():
    own = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head_dense")])
    small = dict(CLASSIFIERS["resnet18_cbam"], input_shape=(*SIZE, 3))
    features = kzoo.build("resnet18_cbam", include_top=False, pooling="avg", **small)
    for model in (own, features, kzoo.build("resnet18_cbam", include_top=False, **small)):
        with pytest.raises(InvalidValueError, match=f"{model.name} has no head and no decoder of the zoo"):
            kzoo.freeze_backbone(model)
    more = kzoo.build("simple_cnn", **CLASSIFIERS["simple_cnn"])
    more = keras.Model(more.input, keras.layers.Dropout(0.1)(more.output), name="more")
    neck = kzoo.build("fpn", include_top=False, **lookup("fpn").narrow)
    for model in (own, features, more, kzoo.build("unet_padded", widths=(4, 8)), neck):
        with pytest.raises(InvalidValueError, match=f"{model.name} is no classifier of the zoo that ends in its head"):
            kzoo.replace_head(model, 3)


@pytest.mark.parametrize("name", EVERY)
def test_a_new_head_has_the_names_and_the_trunk_of_the_model(name, tmp_path):
    model = classifier(name)
    before = state(model)
    new = kzoo.replace_head(model, np.int64(3), classifier_activation=None)
    same = classifier(name, num_classes=3, classifier_activation=None)
    assert new.name == name
    assert [variable.path for variable in new.weights] == [variable.path for variable in same.weights]
    assert new.output.shape == same.output.shape == (None, 3)
    assert new.get_layer("head_activation").get_config() == same.get_layer("head_activation").get_config()
    kept = {path: array for path, array in state(new).items() if not path.startswith("head_dense ")}
    assert all(np.array_equal(array, before[path]) for path, array in kept.items())
    assert len(kept) == len(before) - 2
    assert {path: np.array_equal(array, before[path]) for path, array in state(model).items()} == dict.fromkeys(
        before, True
    )
    # its file is one for the model that build gives, and the numbers are those of trunk and head
    new.save_weights(tmp_path / "new.weights.h5")
    kzoo.load_weights(same, tmp_path / "new.weights.h5")
    images = pixels(2, *model.input.shape[1:])
    assert relative_error(new(images), same(images)) < 1e-6
    assert np.ptp(np.array(new(images))) > 0


def test_a_new_head_drops_the_names_of_classes_and_keeps_the_way_to_the_pixels():
    model = kzoo.with_classes(classifier("simple_cnn"), list("abcde"), Pixels("pad"))
    new = kzoo.replace_head(model, 2)
    assert new.layers[-1].output_fields["class_names"] is None
    assert kzoo.meaning.carried_pixels(new) == Pixels("pad")
    assert kzoo.output.Output.of_model(kzoo.with_classes(new, ["x", "y"])).class_names == ("x", "y")


@pytest.mark.parametrize(
    ("classes", "activation", "message"),
    [
        (0, "softmax", "num_classes=0 must be a positive integer"),
        (2.0, "softmax", "num_classes=2.0 must be"),
        (1, "softmax", "num_classes=1 under a softmax is always 1"),
        (3, "softmaxx", "classifier_activation='softmaxx' is no activation"),
    ],
)
def test_heads_that_cannot_be(classes, activation, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.replace_head(classifier("simple_cnn"), classes, activation)


def test_a_new_head_keeps_the_precision_of_the_model():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = classifier("simple_cnn")
    finally:
        keras.config.set_dtype_policy("float32")
    new = kzoo.replace_head(model, 3)
    assert [new.get_layer(name).compute_dtype for name in ("head_dense", "head_activation")] == ["float16", "float32"]


@pytest.mark.parametrize("name", EVERY)
def test_features_are_the_mean_of_the_last_map(name):
    """Behind the last normalisation and activation: what a head that pools reads."""
    model = classifier(name, classifier_activation=None, **(dict(dropout=0.0) if "vgg" in name else {}))
    features = classifier(name, include_top=False, pooling="avg")
    values = {variable.path: variable for variable in model.weights}
    features.set_weights([np.array(values[variable.path]) for variable in features.weights])
    images = pixels(3, *model.input.shape[1:])
    last = kzoo.taps.tap_names(model)[-1]
    found, maps = np.array(features(images)), np.array(kzoo.pyramid(model, [last])(images)[last], "float64")
    assert found.shape == (3, maps.shape[-1])
    assert relative_error(found, maps.mean(axis=(1, 2))) < 1e-5
    if name not in ("vgg11_bn", "simple_cnn"):  # their heads read every position
        dense = model.get_layer("head_dense")
        assert relative_error(found @ np.array(dense.kernel) + np.array(dense.bias), model(images)) < 1e-5


def test_pooling_needs_a_classifier_without_its_head():
    with pytest.raises(InvalidValueError, match=r"pooling='avg' is for a model without its head; give include_top"):
        kzoo.build("resnet18", pooling="avg")
    with pytest.raises(InvalidValueError, match=r"pooling='avg' is for classifiers; unet is for segmentation"):
        kzoo.build("unet", include_top=False, pooling="avg")
    with pytest.raises(InvalidValueError, match=r"pooling='max' is not accepted; use one of 'avg', None"):
        kzoo.build("resnet18", include_top=False, pooling="max")


def test_features_load_the_file_of_the_classifier(tmp_path):
    model = classifier("resnet18_cbam")
    model.save_weights(tmp_path / "model.weights.h5")
    options = dict(include_top=False, pooling="avg", weights=tmp_path / "model.weights.h5")
    features = kzoo.build("resnet18_cbam", input_shape=(*SIZE, 3), **CLASSIFIERS["resnet18_cbam"] | options)
    before = state(model)
    assert all(np.array_equal(array, before[path]) for path, array in state(features).items())
