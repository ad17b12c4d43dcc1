"""Building and describing: images in, probabilities out, and one clear error for everything else."""

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, pixels, randomise, relative_error, weights_of

import kzoo
from kzoo.errors import InvalidValueError, UnknownNameError, UnknownOptionError
from kzoo.flatten import FlatGraph
from kzoo.weights import known

TINY = dict(depths=(1, 1), widths=(4, 8))


def tiny(name="cifar_resnet20", **options):
    return randomise(kzoo.build(name, **TINY | options))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("resnet50_cbm", {}, UnknownNameError, "unknown model 'resnet50_cbm'; did you mean 'resnet50_cbam'"),
        (
            "resnet50",
            {"atention": "se"},
            UnknownOptionError,
            r"'atention'; its .*; did you mean 'attention'",
        ),
        ("resnet50", {"drop_out": 0.5}, UnknownOptionError, r"its options are depths, widths, .*attention"),
        ("resnet50", {"input_shape": (224, 224)}, InvalidValueError, r"is not \(height, width, channels\)"),
        ("resnet50", {"input_shape": 224}, InvalidValueError, "input_shape=224 is not"),
        ("resnet50", {"input_shape": (1, 224, 224, 3)}, InvalidValueError, "is not"),
        ("resnet50", {"input_shape": (31, 224, 3)}, InvalidValueError, "needs at least 32×32 pixels"),
        ("resnet50", {"input_shape": (224, 0, 3)}, InvalidValueError, "needs at least 32×32 pixels"),
        ("resnet50", {"input_shape": (224, -224, 3)}, InvalidValueError, "needs at least 32×32 pixels"),
        ("resnet50", {"input_shape": (224.0, 224, 3)}, InvalidValueError, "is too small or no integer"),
        ("cifar_resnet20", {"input_shape": (3, 32, 3)}, InvalidValueError, "needs at least 4×4 pixels"),
        ("resnet50", {"input_shape": (224, 224, 0)}, InvalidValueError, "has 0 channels; channels come last"),
        ("resnet50", {"input_shape": (224, 224, None)}, InvalidValueError, "has None channels"),
        (
            "resnet50",
            {"num_classes": 0},
            InvalidValueError,
            "num_classes=0 must be a positive integer; for features .* include_top=False",
        ),
        ("unet_padded", {"num_classes": 1}, InvalidValueError, "num_classes=1 under a softmax is always 1"),
        ("resnet50", {"num_classes": -1}, InvalidValueError, "num_classes=-1"),
        ("resnet50", {"num_classes": True}, InvalidValueError, "num_classes=True"),
        ("resnet50", {"num_classes": "10"}, InvalidValueError, "num_classes='10'"),
        ("resnet50", {"num_classes": 10.0}, InvalidValueError, r"num_classes=10\.0"),
    ],
)
def test_bad_input(name, options, error, message):
    with pytest.raises(error, match=message):
        kzoo.build(name, **options)


def test_errors_are_the_standard_ones_too():
    with pytest.raises(KeyError):
        kzoo.build("nothing")
    with pytest.raises(TypeError):
        kzoo.build("resnet50", nothing=1)
    with pytest.raises(ValueError, match="num_classes"):
        kzoo.build("resnet50", num_classes=0)


def test_wrong_channels_are_refused_when_called():
    with pytest.raises(ValueError, match=r"expected shape=\(None, 32, 32, 3\), found shape=\(1, 32, 32, 4\)"):
        tiny()(pixels(1, 32, 32, 4))


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(InvalidValueError, match="channels last; call keras"):
            kzoo.build("cifar_resnet20")
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("cifar_resnet20", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("resnet50_v1", np.array((123.68, 116.779, 103.939)) / 255, np.full(3, 1 / 255)),
        ("resnet50_v2", np.full(3, 0.5), np.full(3, 0.5)),
    ],
)
def test_models_eat_pixels(name, mean, std):
    options = dict(input_shape=(32, 32, 3), depths=(1, 1), widths=(4, 8))
    model = randomise(kzoo.build(name, **options))
    bare = kzoo.build(name, include_preprocessing=False, **options)
    bare.set_weights(model.get_weights())
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype="uint8")
    layer = model.layers[1]
    assert layer.name == "preprocessing"
    normalised = (images / 255 - mean) / std
    np.testing.assert_allclose(layer(images), normalised, atol=1e-5 * np.abs(normalised).max())
    assert relative_error(model(images), bare(normalised.astype("float32"))) < 1e-5
    np.testing.assert_array_equal(model.predict(images, verbose=0), model.predict(images.astype("float32"), verbose=0))


@pytest.mark.parametrize("channels", [1, 4])
def test_images_that_are_not_rgb_use_average_constants(channels):
    model = tiny(input_shape=(32, 32, channels))
    images = pixels(2, 32, 32, channels)
    expected = (images / 255 - np.mean((0.485, 0.456, 0.406))) / np.mean((0.229, 0.224, 0.225))
    np.testing.assert_allclose(model.get_layer("preprocessing")(images), expected, atol=1e-5)
    assert model(images).shape == (2, 10)


@pytest.mark.quick
def test_heads():
    images = pixels(2, 32, 32, 3)
    softmax = tiny(num_classes=7)
    logits = tiny(num_classes=7, classifier_activation=None)
    expected = np.exp(logits(images)) / np.exp(logits(images)).sum(-1, keepdims=True)
    assert relative_error(softmax(images), expected) < 1e-5
    assert softmax.name == "cifar_resnet20"

    trunk = tiny(include_top=False, num_classes=0)  # without a classifier their number does not matter
    trunk.set_weights(logits.get_weights()[:-2])
    features = np.array(trunk(images))
    assert features.shape == (2, 16, 16, 8)
    kernel, bias = logits.get_weights()[-2:]
    assert relative_error(features.mean((1, 2)) @ kernel + bias, logits(images)) < 1e-5


def test_two_models_of_one_kind_stand_in_one_graph_under_names_of_their_own():
    left, right = (randomise(kzoo.build("cifar_resnet20", name=name, **TINY)) for name in ("left", "right"))
    assert [left.name, right.name] == ["left", "right"]
    assert kzoo.build(name="cifar_resnet20", **TINY).name == "cifar_resnet20"  # alone it is the zoo's name
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, keras.layers.Average()([left(image), right(image)]))
    images = pixels(2, 32, 32, 3)
    assert relative_error(model(images), (np.array(left(images)) + np.array(right(images))) / 2) < 1e-6
    with pytest.raises(ValueError, match=r'"cifar_resnet20" is used 2 times'):  # by Keras
        keras.Model(image, [kzoo.build("cifar_resnet20", **TINY)(image) for _ in range(2)])
    for name in ("", 3, "a/b"):
        with pytest.raises(InvalidValueError, match=f"name={name!r} must be text"):
            kzoo.build("cifar_resnet20", name=name, **TINY)
    with pytest.raises(UnknownNameError, match="unknown model None"):
        kzoo.build()


@pytest.mark.parametrize("what", ["two", "renamed", "one, called twice"])
def test_pairs_of_models_save_fold_and_are_read_in_one_graph(what, tmp_path):
    """Ensembles of two networks of one kind, whose layers have the same names, and siamese ones of one."""
    image, other = (keras.Input((32, 32, 3), name=name) for name in ("image", "other"))
    left, right = (
        randomise(kzoo.build("cifar_resnet20", name=name, **TINY), seed) for seed, name in enumerate(("left", "right"))
    )
    if what == "renamed":
        right.save(tmp_path / "right.keras")
        left, right = tiny(), keras.saving.load_model(tmp_path / "right.keras")
    pair = keras.Model([image, other], [left(image), (left if "twice" in what else right)(other)])
    images = [pixels(2, 32, 32, 3, seed=seed) for seed in (1, 2)]
    expected = [np.array(left(images[0])), np.array((left if "twice" in what else right)(images[1]))]
    pair.save(tmp_path / "pair.keras")
    folded = kzoo.fold_batch_norm(pair)
    for model, tolerance in ((pair, 1e-6), (keras.saving.load_model(tmp_path / "pair.keras"), 1e-6), (folded, 1e-5)):
        assert max(map(relative_error, model(images), expected)) < tolerance
    assert not any("moving" in variable.path for variable in folded.variables)
    graph = FlatGraph(pair)
    assert [node.operation.name for node in graph.outputs] == ["head_activation"] * 2
    assert len(set(map(id, (node.operation for node in graph.outputs)))) == (1 if "twice" in what else 2)
    assert [read_images(node) for node in graph.outputs] == [{"image"}, {"other"}]


def read_images(node) -> set[str]:
    """Names of the inputs that a call follows from."""
    found = {node.operation.name} if node.call is None else set()
    return found.union(*map(read_images, node.sources))


def test_any_size():
    model = tiny(input_shape=(None, None, 3), classifier_activation=None)
    assert model.input.shape == (None, None, None, 3)
    fixed = tiny(input_shape=(20, 36, 3), classifier_activation=None)
    fixed.set_weights(model.get_weights())
    images = pixels(2, 20, 36, 3)
    assert relative_error(model(images), fixed(images)) < 1e-5
    with pytest.raises(InvalidValueError, match=r"maps of unknown size .* build with an input_shape"):
        kzoo.graph.count_macs(model)


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (33, 17)])
def test_sizes_that_the_stride_does_not_divide(size):
    """The smallest map and odd ones: option A and the strided convolutions agree on the size."""
    model = tiny(input_shape=(*size, 3))
    assert model.get_layer("p1").output.shape[1:3] == tuple(-(-s // 2) for s in size)
    assert np.isfinite(model(pixels(2, *size, 3))).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_half_precision_ends_in_full(policy):
    images = pixels(2, 32, 32, 3)
    full = tiny(attention="cbam", classifier_activation=None)
    keras.config.set_dtype_policy(policy)
    try:
        half = tiny(attention="cbam", classifier_activation=None)
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(full.get_weights())
    assert half.get_layer("preprocessing").compute_dtype == "float32"
    assert half.get_layer("stem_conv").compute_dtype == policy.removeprefix("mixed_")
    assert half(images).dtype == "float32"
    # 8 bits in a bfloat16 and 11 in a float16, rounded in each of 15 layers
    assert relative_error(half(images), full(images)) < (5e-2 if "bfloat16" in policy else 1e-2)


def test_building_twice_gives_independent_models():
    first, second = tiny(), tiny()
    before = weights_of(second)
    randomise(first, seed=5)
    assert_weights_are(second, before)


@pytest.mark.usefixtures("without_values")
def test_describe():
    info = kzoo.describe("resnet50_cbam")
    assert (info.name, info.family, info.input_shape, info.num_classes) == (
        "resnet50_cbam",
        "resnet",
        (224, 224, 3),
        1000,
    )
    assert info.taps == {
        "p1": (112, 112, 64),
        "p2": (56, 56, 256),
        "p3": (28, 28, 512),
        "p4": (14, 14, 1024),
        "p5": (7, 7, 2048),
    }
    assert info.papers == ("1512.03385", "1807.06521")
    assert info.options["attention"] == "cbam"
    assert info.weights == ()
    assert kzoo.describe("resnet18").weights[:3] == ("imagenet", "a1_in1k", "a2_in1k")
    assert kzoo.describe("resnet50_v2_se").papers == ("1603.05027", "1709.01507")
    with pytest.raises(UnknownNameError, match="did you mean 'resnet50'"):
        kzoo.describe("resnet5O")


@pytest.mark.parametrize(
    ("name", "overrides", "papers", "has_weights"),
    [
        ("resnet18", {}, ("1512.03385",), True),
        ("resnet18", {"attention": "se"}, ("1512.03385", "1709.01507"), False),
        ("resnet18", {"attention": lambda x, name: x}, ("1512.03385",), False),
        ("resnet18_se", {"attention": "cbam"}, ("1512.03385", "1807.06521"), False),
        ("resnet18_se", {"attention": None}, ("1512.03385",), False),
        ("resnet18_cbam", {"attention": "channel_attention"}, ("1512.03385", "1807.06521"), False),
        ("resnet18", {"bn_epsilon": 1e-3}, ("1512.03385",), False),
        ("resnet18", {"attention": None}, ("1512.03385",), True),
        ("swin_tiny", {"drop_path_rate": 0.0}, ("2103.14030",), True),
        ("swin_tiny", {"window_size": 8}, ("2103.14030",), False),
        ("inception_v3", {"dropout": 0.5}, ("1512.00567",), True),
        ("inception_v3", {"auxiliary": True}, ("1512.00567",), False),
    ],
)
@pytest.mark.usefixtures("without_values")
def test_describe_follows_the_options(name, overrides, papers, has_weights, monkeypatch):
    monkeypatch.setattr("kzoo.zoo.build", lambda *args, **options: tiny())  # what it builds does not matter here
    info = kzoo.describe(name, **overrides)
    assert info.papers == papers
    assert info.weights == (known(name) if has_weights else ())
    assert bool(known(name)) >= has_weights


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", dict(bn_epsilon=-1)),
        ("resnet18", dict(bn_epsilon=float("nan"))),
        ("resnet18", dict(bn_epsilon="x")),
        ("resnet50", dict(conv_bias="no")),
        ("resnet50", dict(preactivation="no")),
        ("resnet50", dict(stride_conv=True)),
        ("vgg11", dict(batch_norm=0)),
        ("swin_tiny", dict(mlp_ratio="x")),
        ("swin_tiny", dict(mlp_ratio=float("inf"))),
        ("swin_tiny", dict(mlp_ratio=1e-12)),
        ("swin_tiny", dict(mlp_ratio=10**9)),
        ("swin_tiny", dict(drop_path_rate=[0.1])),
        ("swin_tiny", dict(layer_scale="x")),
        ("swin_tiny", dict(normalise_taps="no")),
        ("nat_mini", dict(clamp_kernel=object())),
        ("resnet18", dict(attention=lambda x: x)),
        ("resnet18", dict(classifier_activation="softmaxx")),
        ("resnet18", dict(include_top="yes")),
        ("resnet18", dict(include_preprocessing="no")),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_values_that_an_option_cannot_take(name, options):
    with pytest.raises(InvalidValueError, match=next(iter(options))):
        kzoo.build(name, **options)


def test_names_and_patterns_must_be_text():
    with pytest.raises(UnknownNameError, match="unknown model"):
        kzoo.build(["resnet50"])
    with pytest.raises(InvalidValueError, match="pattern=3 must be text"):
        kzoo.list_models(3)
    with pytest.raises(InvalidValueError, match="levels=3 must be a list of tap names"):
        kzoo.pyramid(kzoo.build("simple_cnn"), 3)


def test_the_number_of_classes_may_be_a_numpy_integer():
    assert kzoo.build("simple_cnn", num_classes=np.int64(5), dense_units=np.int64(8)).output.shape == (None, 5)


@pytest.mark.usefixtures("without_values")
def test_describes_a_model_on_a_backbone():
    info = kzoo.describe("unet", backbone="resnet18_se")
    assert info.papers == ("1505.04597", "1512.03385", "1709.01507")
    assert list(info.taps) == ["p1", "p2", "p3", "p4", "p5"]
    assert info.options["backbone"] == "resnet18_se"
    assert info.weights == ()
    assert kzoo.describe("fpn").papers == ("1612.03144", "1901.02446", "1512.03385")
