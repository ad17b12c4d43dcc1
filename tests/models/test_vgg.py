"""VGGs: sizes, costs, names, taps, both heads, attention, and equality with keras.applications."""

import re

import keras
import numpy as np
import pytest
from helpers import (
    feature_map,
    one_of_each_kind,
    pixels,
    randomise,
    relative_error,
    weights_of,
    weights_without_gradient,
)

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.models.vgg import VARIANTS
from kzoo.registry import lookup
from kzoo.surgery import plan_folding
from kzoo.zoo import count_parameters

# trainable parameters and GMACs at 224×224 with 1000 classes, as timm counts them
TIMM = {
    "vgg11": (132_863_336, 7.609),
    "vgg13": (133_047_848, 11.308),
    "vgg16": (138_357_544, 15.470),
    "vgg19": (143_667_240, 19.632),
    "vgg11_bn": (132_868_840, 7.609),
    "vgg16_bn": (138_365_992, 15.470),
    "vgg19_bn": (143_678_248, 19.632),
}
SMALL = dict(depths=(1, 2, 1), widths=(8, 16, 16), dense_units=24, map_size=None, dropout=0.0)


def small(name="vgg16_bn", **options):
    options = dict(input_shape=(32, 40, 3), num_classes=10, classifier_activation=None) | SMALL | options
    return kzoo.build(name, **options)


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", TIMM)
def test_size_and_cost_are_timms(name):
    parameters, gmacs = TIMM[name]
    info = kzoo.describe(name)
    assert info.trainable_parameters == parameters
    assert round(info.macs / 1e9, 3) == gmacs


@pytest.mark.usefixtures("without_values")
def test_size_with_attention_and_the_average_head():
    convs = [64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    assert len(convs) == 13
    kernels = sum(9 * before * width + width for before, width in zip([3, *convs], convs, strict=False))
    average = count_parameters(kzoo.build("vgg16", head="average"))
    assert average == kernels + 512 * 1000 + 1000
    hidden = [max(8, width // 16) for width in convs]
    se = sum(2 * width * units + units + width for width, units in zip(convs, hidden, strict=True))
    assert count_parameters(kzoo.build("vgg16_se", head="average")) == average + se
    cbam = sum(2 * width * (width // 16) + 2 * 49 + 2 for width in convs)
    assert count_parameters(kzoo.build("vgg16_cbam", head="average")) == average + cbam


def test_variants_are_the_papers_with_and_without_norms_and_attention():
    depths = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
    expected = {
        f"vgg{n}{norm}{f'_{attention}' if attention else ''}": (stages, bool(norm), attention)
        for n, stages in depths.items()
        for norm in ("", "_bn")
        for attention in (None, "se", "cbam")
    }
    assert {name: (c.depths, c.batch_norm, c.attention) for name, c in VARIANTS.items()} == expected
    assert all(sum(stages) + 3 == n for n, stages in depths.items())  # a VGG's number counts its dense layers too
    assert {name for name in VARIANTS if lookup(name).preprocessing == "caffe"} == {"vgg16", "vgg19"}


NAME = re.compile(
    r"image|preprocessing|p\d|stage\d_((conv|bn|relu|attention)\d|pool)"
    r"|head_(permute|flatten|(fc|relu|dropout)[12]|dense|activation|pool)"
)


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", one_of_each_kind(VARIANTS))
def test_every_layer_has_a_name_of_the_contract(name):
    for head in ("dense", "average"):
        model = small(name, head=head)
        assert [layer.name for layer in model.layers if not NAME.fullmatch(layer.name)] == []
        attention = sum("_attention" in layer.name for layer in model.layers)
        assert attention == (sum(SMALL["depths"]) if VARIANTS[name].attention else 0)


def test_taps_are_the_last_maps_of_their_stride():
    model = kzoo.build("vgg11_bn", input_shape=(45, 71, 3), widths=(8,) * 5, map_size=None, dense_units=8)
    shapes = [model.get_layer(f"p{n}").output.shape[1:3] for n in range(6)]
    assert shapes == [(45, 71), (22, 35), (11, 17), (5, 8), (2, 4), (1, 2)]
    sources = [model.get_layer(f"p{n}").input for n in range(6)]
    last = ["stage1_relu1", "stage2_relu1", "stage3_relu2", "stage4_relu2", "stage5_relu2", "stage5_pool"]
    assert all(x is model.get_layer(name).output for x, name in zip(sources, last, strict=True))
    trunk = kzoo.build("vgg11_bn", input_shape=(None, None, 3), widths=(8,) * 5, include_top=False)
    assert trunk.output is trunk.get_layer("p5").output
    maps = keras.Model(model.input, [model.get_layer(name).output for name in ("p2", "stage3_pool")])
    before, after = (np.array(x) for x in maps(pixels(2, 45, 71, 3)))
    pooled = np.array(
        [[before[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2)) for j in range(8)] for i in range(5)]
    )
    np.testing.assert_array_equal(after, pooled.transpose(2, 0, 1, 3))


def applications_weights(theirs, map_shape: tuple[int, int]) -> list[np.ndarray]:
    """The weights of keras.applications' VGG in the order of the zoo's, its first dense kernel channels first."""
    weights = theirs.get_weights()
    kernel = weights[-6].reshape(*map_shape, 512, 4096)
    weights[-6] = kernel.transpose(2, 0, 1, 3).reshape(weights[-6].shape)
    return weights


@pytest.mark.parametrize(
    ("name", "factory"), [("vgg16", "VGG16"), pytest.param("vgg19", "VGG19", marks=pytest.mark.slow)]
)
def test_logits_equal_keras_applications_from_pixels(name, factory):
    options = dict(input_shape=(64, 96, 3), classifier_activation=None)
    theirs = randomise(getattr(keras.applications, factory)(weights=None, classes=10, **options))
    model = kzoo.build(name, num_classes=10, map_size=None, **options)
    weights = applications_weights(theirs, (2, 3))
    weights[0] = weights[0][:, :, ::-1]  # theirs reads blue first
    model.set_weights(weights)
    images = pixels(2, 64, 96, 3)
    expected = theirs(keras.applications.vgg16.preprocess_input(images.copy()))
    error = relative_error(model(images), expected)
    print(f"{name}: {error:.2g}")
    assert error < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "factory"), [("vgg16", "VGG16"), ("vgg19", "VGG19")])
def test_logits_equal_keras_applications_at_full_size(name, factory):
    theirs = randomise(getattr(keras.applications, factory)(weights=None, classifier_activation=None))
    model = kzoo.build(name, classifier_activation=None, include_preprocessing=False)
    model.set_weights(applications_weights(theirs, (7, 7)))
    images = feature_map(2, 224, 224, 3)
    error = relative_error(model(images), theirs(images))
    print(f"{name}: {error:.2g}")
    assert error < 1e-5


def test_the_dense_head_takes_one_size():
    shape = dict(input_shape=(255, 230, 3), widths=(8,) * 5, dense_units=8)
    assert kzoo.build("vgg11", **shape).get_layer("head_fc1").kernel.shape == (7 * 7 * 8, 8)
    with pytest.raises(InvalidValueError, match=r"7×7, which images of 224×224 give, not 8×7; use head='average'"):
        kzoo.build("vgg11", **shape | dict(input_shape=(256, 230, 3)))
    with pytest.raises(InvalidValueError, match=r"6×6, which images of 192×192 give, not 7×7; .* or map_size=None"):
        kzoo.build("vgg11", **shape, map_size=6)
    with pytest.raises(InvalidValueError, match=r"needs a fixed image size; .* use head='average'"):
        kzoo.build("vgg11", input_shape=(None, 224, 3), map_size=None)
    assert small().get_layer("head_fc1").kernel.shape == (4 * 5 * 16, 24)


def test_the_average_head_takes_any_size():
    model = randomise(small(head="average", input_shape=(None, None, 3)))
    images = pixels(2, 37, 51, 3)
    last = np.array(keras.Model(model.input, model.get_layer("p3").output)(images))
    assert last.shape == (2, 4, 6, 16)
    kernel, bias = model.get_layer("head_dense").get_weights()
    assert relative_error(model(images), last.mean((1, 2)) @ kernel + bias) < 1e-5


def test_dropout_works_in_training_alone_and_under_xla():
    model = randomise(small(dropout=0.5))
    images = pixels(8, 32, 40, 3)
    np.testing.assert_array_equal(model(images), model(images))
    head = keras.Model(model.get_layer("p3").output, model.get_layer("head_dropout1").output)
    x = np.abs(feature_map(8, 4, 5, 16))
    kept, all_units = np.array(head(x, training=True)), np.array(head(x))
    np.testing.assert_allclose(kept, np.where(kept > 0, 2 * all_units, 0), rtol=1e-6)
    assert 0.3 < (kept > 0).sum() / (all_units > 0).sum() < 0.7
    model.compile("sgd", "mse", jit_compile=True)
    assert np.isfinite(model.train_on_batch(images, np.zeros((8, 10))))


def test_slots():
    def order(**options):
        return [layer.name for layer in small("vgg16", head="average", **options).layers]

    branch = order(attention="channel_attention")
    assert [name for name in branch if "attention" in name] == [
        f"stage{s}_attention{n}" for s, n in ((1, 1), (2, 1), (2, 2), (3, 1))
    ]
    at = branch.index("stage2_attention1")
    assert branch[at - 1 : at + 2] == ["stage2_relu1", "stage2_attention1", "stage2_conv2"]
    spatial = order(attention="stand_alone")
    assert [name for name in spatial if re.search(r"conv|attention", name)] == [
        *("stage1_conv1", "stage2_conv1", "stage2_attention2", "stage3_conv1")
    ]
    stage = order(attention="non_local")
    at = stage.index("stage3_attention1")
    assert stage[at - 1 : at + 3] == ["stage3_relu1", "stage3_attention1", "p2", "stage3_pool"]
    assert sum("attention" in name for name in stage) == 1
    seen = []
    small(attention=lambda x, name: seen.append(name) or x)
    assert seen == [name for name in branch if "attention" in name]


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["stand_alone", "non_local"])
def test_attention_goes_the_whole_path(attention, tmp_path):
    model = randomise(small(attention=attention))
    images = pixels(4, 32, 40, 3)
    folded = kzoo.fold_batch_norm(model)
    assert plan_folding(model).kept == {}
    assert relative_error(folded(images), model(images)) < 1e-5
    report = kzoo.export(folded, tmp_path / "model.tflite", calibration=images)
    assert report.xnnpack_partitions == 1
    assert report.max_rel_error < 1e-5
    # batch normalisation or a softmax takes these biases out again
    idle = re.compile(r".*_conv\d/bias|stage\d_attention\d/(g|phi|out)/bias")
    assert [path for path in weights_without_gradient(model, images) if not idle.fullmatch(path)] == []
    before = weights_of(model)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=True)
    assert np.isfinite(model.train_on_batch(images, np.arange(4)))
    unmoved = [w.path for w, old in zip(model.weights, before, strict=True) if np.array_equal(w, old)]
    assert [path for path in unmoved if not idle.fullmatch(path)] == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(depths=(2, 2)), r"depths=\(2, 2\) and widths=\(64, 128, 256, 512, 512\) must have one number per stage"),
        (dict(depths=(), widths=()), "one number per stage"),
        (dict(depths=(1, 1, 0, 1, 1)), r"depths=\(1, 1, 0, 1, 1\) must be a tuple of positive integers"),
        (dict(widths=64), "widths=64"),
        (dict(head="flatten"), "head='flatten' is not accepted; use one of 'dense', 'average'"),
        (dict(map_size=0), "map_size=0 must be a positive integer"),
        (dict(map_size=(7, 7)), r"map_size=\(7, 7\) must be"),
        (dict(dense_units=0), "dense_units=0 must be a positive integer"),
        (dict(dropout=1), "dropout=1 must be a number of at least 0 and below 1"),
        (dict(dropout=-0.1), "dropout=-0.1"),
        (dict(dropout=None), "dropout=None must be a number"),
        (dict(batch_norm="yes"), "batch_norm='yes' must be True or False"),
        (dict(attention="sam"), "attention='sam' is not accepted; use one of 'se', 'cbam'"),
        (dict(input_shape=(31, 224, 3)), "needs at least 32×32 pixels"),
    ],
)
def test_bad_options(overrides, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.build("vgg16", **overrides)
