"""GoogLeNet: Table 1, the paper's network against NumPy, pooling in ceil mode, auxiliary heads."""

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
    slow_but,
    weights_without_gradient,
)

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.models.googlenet import ceil_pool
from kzoo.models.inception import loss_weights, without_auxiliary
from kzoo.registry import lookup
from kzoo.taps import tap_names
from kzoo.zoo import count_parameters

SMALL = dict(modules=("3a", "4a", "4d", "5a"), width=0.125, num_classes=5)


def small(name="googlenet_bn", **options):
    return randomise(kzoo.build(name, **{"input_shape": (96, 80, 3)} | SMALL | options))


# trainable parameters with 1000 classes; those of the paper's network are the published Caffe model's
SIZES = {
    ("googlenet", False): 6_998_552,
    ("googlenet", True): 13_378_280,
    ("googlenet_bn", False): 6_624_904,
    ("googlenet_bn", True): 13_004_888,
}


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize(("name", "auxiliary"), SIZES)
def test_size(name, auxiliary):
    assert count_parameters(kzoo.build(name, auxiliary=auxiliary)) == SIZES[name, auxiliary]


@pytest.mark.usefixtures("without_values")
def test_cost_is_torchvisions():
    assert round(kzoo.describe("googlenet_bn").macs / 1e9, 3) == 1.498
    assert round(kzoo.describe("googlenet").macs / 1e9, 3) == 1.583


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", ["googlenet", "googlenet_bn"])
def test_maps_are_those_of_table_1(name):
    model = kzoo.build(name)
    modules = {"3a": 256, "3b": 480, "4a": 512, "4b": 512, "4c": 512, "4d": 528, "4e": 832, "5a": 832, "5b": 1024}
    for module, channels in modules.items():
        side = {"3": 28, "4": 14, "5": 7}[module[0]]
        assert model.get_layer(f"inception{module}_concat").output.shape[1:] == (side, side, channels)
    assert tap_names(model) == ["p1", "p2", "p3", "p4", "p5"]
    shapes = [model.get_layer(tap).output.shape[1:] for tap in tap_names(model)]
    assert shapes == [(112, 112, 64), (56, 56, 192), (28, 28, 480), (14, 14, 832), (7, 7, 1024)]


NAME = re.compile(
    r"image|preprocessing|p\d|head_(pool|dropout|dense|activation)|stem_(conv1_pad|(conv|bn|relu|pool|norm)\d)"
    r"|stem_pool\d_(stride1|crop)|stage[34]_pool(_stride1|_crop)?|inception\d[a-e]_(branch\d_((conv|bn|relu)\d?|pool)|concat|attention)"
    r"|auxiliary\d_(pool|conv|bn|relu|permute|flatten|dense|dense_relu|dropout|head_dense|head_activation)"
)


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", one_of_each_kind(kzoo.list_models("googlenet*")))
def test_every_layer_has_a_name_of_the_contract(name):
    model = kzoo.build(name, auxiliary=True, input_shape=(97, 143, 3), width=0.125)
    assert [layer.name for layer in model.layers if not NAME.fullmatch(layer.name)] == []
    attention = [layer.name for layer in model.layers if layer.name.endswith("_attention")]
    assert len(attention) == (9 if name.endswith(("_se", "_cbam")) else 0)


def test_attention_weighs_the_concatenated_maps():
    def halve(x, name):
        return keras.layers.Rescaling(0.5, name=name)(x)

    model = small(attention=halve)
    assert model.get_layer("inception4a_attention").input is model.get_layer("inception4a_concat").output
    assert model.get_layer("inception4d_branch1_conv").input is model.get_layer("inception4a_attention").output


def convolve(x, layer, strides: int = 1):
    """A convolution with symmetric padding, one offset of the kernel after the other."""
    kernel, bias = np.array(layer.kernel, "float64"), np.array(layer.bias, "float64")
    size = kernel.shape[0]
    x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    height, width = ((side - size) // strides + 1 for side in x.shape[1:3])
    y = np.zeros((len(x), height, width, kernel.shape[3])) + bias
    for i in range(size):
        for j in range(size):
            y += (
                x[:, i : i + strides * height : strides, j : j + strides * width : strides][:, :height, :width]
                @ (kernel[i, j])
            )
    return np.maximum(y, 0)


def pool(x, size: int, strides: int, padding: int = 0, reduce=np.max):
    """One window after the other; the last may reach over the edge, and what lies outside does not count."""

    def windows(side: int) -> list[slice]:
        starts = range(-padding, side + padding - size + strides, strides)
        return [slice(max(start, 0), start + size) for start in starts]

    _, height, width, _ = x.shape
    rows = [[reduce(x[:, row, column], axis=(1, 2)) for column in windows(width)] for row in windows(height)]
    return np.array(rows).transpose(2, 0, 1, 3)


def respond(x):
    """Local response normalisation over five channels with Caffe's constants."""
    padded = np.pad(x**2, ((0, 0),) * 3 + ((2, 2),))
    energy = sum(padded[..., offset : offset + x.shape[-1]] for offset in range(5))
    return x / (1 + 1e-4 / 5 * energy) ** 0.75


def paper_network(model, images):
    """Table 1 and section 5 in float64, on the weights of `model`: the head's logits and the auxiliary ones."""

    def apply(x, name, strides=1):
        return convolve(x, model.get_layer(name), strides)

    def dense(x, name):
        kernel, bias = model.get_layer(name).get_weights()
        return x @ kernel.astype("float64") + bias

    logits = {}
    x = images - np.array([123.68, 116.779, 103.939])
    x = respond(pool(apply(x, "stem_conv1", 2), 3, 2))
    x = pool(respond(apply(apply(x, "stem_conv2"), "stem_conv3")), 3, 2)
    for module in SMALL["modules"]:
        if module in ("4a", "5a"):
            x = pool(x, 3, 2)
        name = f"inception{module}_branch"
        x = np.concatenate(
            [
                apply(x, f"{name}1_conv"),
                apply(apply(x, f"{name}2_conv1"), f"{name}2_conv2"),
                apply(apply(x, f"{name}3_conv1"), f"{name}3_conv2"),
                apply(pool(x, 3, 1, padding=1), f"{name}4_conv"),
            ],
            axis=-1,
        )
        if module in ("4a", "4d"):
            name = f"auxiliary{1 + (module == '4d')}"
            rows, columns = ((side - 5) // 3 * 3 + 5 for side in x.shape[1:3])  # whole windows alone
            y = apply(pool(x[:, :rows, :columns], 5, 3, reduce=np.mean), f"{name}_conv")
            y = y.transpose(0, 3, 1, 2).reshape(len(y), -1)
            logits[name] = dense(np.maximum(dense(y, f"{name}_dense"), 0), f"{name}_head_dense")
    return logits | {"head": dense(x.mean(axis=(1, 2)), "head_dense")}


@pytest.mark.parametrize("size", [(96, 160), (111, 93)], ids=["even", "odd"])
def test_the_papers_network_against_numpy(size):
    model = small("googlenet", auxiliary=True, input_shape=(*size, 3), classifier_activation=None)
    assert model.get_layer("inception4a_branch3_conv2").kernel_size == (5, 5)
    # two images that differ a lot, since noise looks the same to a network
    images = pixels(2, *size, 3) * np.array([1.0, 0.3])[:, None, None, None]
    images[1, :, : size[1] // 2] = 200
    outputs = model(images)
    expected = paper_network(model, images)
    assert set(outputs) == set(expected) == {"head", "auxiliary1", "auxiliary2"}
    for name, logits in expected.items():
        assert np.ptp(logits, axis=0).max() > 0.01 * np.abs(logits).max()
        error = relative_error(outputs[name], logits)
        print(f"{name}: {error:.2g}")
        assert error < 1e-5


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (6, 9), (7, 8), (3, 3), (2, 4), (4, 3)])
@pytest.mark.parametrize("shift", [0, -10], ids=["both_signs", "negative"])
def test_ceil_pool(size, shape, shift):
    x = feature_map(2, *shape, 3) + shift  # in torch no value beyond the edge wins, be the map as negative as it will
    expected = pool(x, size, 2)
    assert expected.shape[1:3] == tuple(-(-(side - size) // 2) + 1 for side in shape)  # torch's formula
    for given in (shape, (None, None), (shape[0], None)):
        inputs = keras.Input((*given, 3))
        np.testing.assert_array_equal(keras.Model(inputs, ceil_pool(inputs, size, "pool"))(x), expected)


def test_adaptive_pooling_of_small_maps():
    model = small(auxiliary=True, input_shape=(32, 112, 3))
    x = feature_map(2, 2, 7, 64)
    y = model.get_layer("auxiliary1_pool")(x)
    rows, columns = ([slice(i * side // 4, -(-(i + 1) * side // 4)) for i in range(4)] for side in (2, 7))
    expected = [[x[:, row, column].mean(axis=(1, 2)) for column in columns] for row in rows]
    assert relative_error(y, np.array(expected).transpose(2, 0, 1, 3)) < 1e-5


@pytest.mark.parametrize("name", ["googlenet", "googlenet_bn"])
def test_unknown_sizes(name):
    model = small(name, input_shape=(None, None, 3))
    fixed = small(name, input_shape=(61, 90, 3))
    images = pixels(2, 61, 90, 3)
    assert relative_error(model(images), fixed(images)) < 1e-6


@pytest.mark.parametrize("name", slow_but(["googlenet_bn"], ["googlenet", "googlenet_bn"]))
def test_auxiliary_heads_train_beside_the_main_one(name):
    model = small(name, auxiliary=True, dropout=0.0, auxiliary_dropout=0.0, classifier_activation=None)
    images, labels = pixels(4, 96, 80, 3), np.arange(4)
    weights = loss_weights(model)
    assert weights == {"head": 1.0, "auxiliary1": 0.3, "auxiliary2": 0.3}

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    outputs = model(images, training=True)
    expected = sum(weight * float(loss(labels, outputs[output])) for output, weight in weights.items())
    model = small(name, auxiliary=True, dropout=0.0, auxiliary_dropout=0.0, classifier_activation=None)
    before = {weight.path: np.array(weight) for weight in model.trainable_weights}
    model.compile(keras.optimizers.SGD(1e-3), dict.fromkeys(weights, loss), loss_weights=weights, run_eagerly=True)
    history = model.fit(images, dict.fromkeys(weights, labels), batch_size=4, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)
    assert {"head_loss", "auxiliary1_loss", "auxiliary2_loss"} <= set(history)
    moved = [weight.path for weight in model.trainable_weights if not np.array_equal(weight, before[weight.path])]
    assert {path.split("_")[0] for path in moved} >= {"auxiliary1", "auxiliary2", "head", "inception5a", "stem"}


def test_an_auxiliary_head_alone_reaches_its_part_of_the_trunk():
    model = small(auxiliary=True, auxiliary_dropout=0.0, classifier_activation=None)
    side = keras.Model(model.input, model.output["auxiliary1"])
    assert weights_without_gradient(side, pixels(4, 96, 80, 3)) == []
    stages = {weight.path.split("_")[0] for weight in side.trainable_weights}
    assert stages == {"stem", "inception3a", "inception4a", "auxiliary1"}


@pytest.mark.usefixtures("without_values")
def test_dropout_is_where_the_paper_has_it():
    model = kzoo.build("googlenet", auxiliary=True)
    rates = {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}
    assert rates == {"head_dropout": 0.4, "auxiliary1_dropout": 0.7, "auxiliary2_dropout": 0.7}


def test_auxiliary_heads_vanish_at_inference_and_export(tmp_path):
    model = small(auxiliary=True)
    images = pixels(2, 96, 80, 3)
    expected = np.array(model(images)["head"])
    plain = without_auxiliary(model)
    assert plain.name == model.name
    assert [layer.name for layer in plain.layers] == [layer.name for layer in small().layers]
    np.testing.assert_array_equal(plain(images), expected)
    assert without_auxiliary(plain) is plain
    with pytest.raises(InvalidValueError, match="no auxiliary heads; build it with auxiliary=True"):
        loss_weights(plain)

    model.save(tmp_path / "model.keras")
    folded = kzoo.fold_batch_norm(keras.saving.load_model(tmp_path / "model.keras"))
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
    for output, probabilities in model(images).items():
        assert relative_error(folded(images)[output], probabilities) < 1e-5
    report = kzoo.export(folded, tmp_path / "model.tflite", calibration=images)
    assert report.xnnpack_partitions == 1
    assert report.ops["CONV_2D"] == 3 + 4 * 6


def test_other_models_keep_all_their_outputs(tmp_path):
    """A head alone, without any that is called auxiliary, leaves nothing out."""
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, {"head": inputs + 1, "mask": inputs * 2})
    assert list(kzoo.export(model, tmp_path / "model.tflite").outputs) == ["head", "mask"]


@pytest.mark.usefixtures("without_values")
def test_features_have_no_auxiliary_heads():
    model = kzoo.build("googlenet_bn", auxiliary=True, include_top=False)
    assert model.output_shape == (None, 7, 7, 1024)
    assert not any(layer.name.startswith("auxiliary") for layer in model.layers)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("googlenet", dict(normalisation="layer"), "normalisation='layer' is not accepted"),
        ("googlenet", dict(large_kernel=7), "large_kernel=7"),
        ("googlenet", dict(last_pool=1), "last_pool=1"),
        ("googlenet", dict(auxiliary=1), "auxiliary=1 must be True or False"),
        ("googlenet", dict(auxiliary_pool="max"), "auxiliary_pool='max'"),
        ("googlenet", dict(dropout=1.0), r"dropout=1\.0 must be a number of at least 0 and below 1"),
        ("googlenet", dict(auxiliary_dropout=-0.1), r"auxiliary_dropout=-0\.1"),
        ("googlenet", dict(width=0), "width=0 must be a positive number"),
        ("googlenet", dict(width="half"), "width='half'"),
        ("googlenet", dict(modules=("3a", "4a")), "one or more of each stage"),
        ("googlenet", dict(modules=("4a", "3a", "5a")), "in this order"),
        ("googlenet", dict(modules=("3a", "4a", "5a"), auxiliary=True), "and with 4a and 4d"),
        ("googlenet", dict(attention="sam"), "attention='sam' is not accepted"),
        ("googlenet", dict(attention="non_local"), "a 'stage' slot, which inception networks do not have"),
        ("googlenet", dict(attention="window"), "a 'spatial' slot, which inception networks do not have"),
        ("googlenet", dict(auxiliary=True, input_shape=(78, 224, 3)), "googlenet needs at least 79×79 pixels"),
        ("googlenet", dict(input_shape=(31, 224, 3)), "googlenet needs at least 32×32 pixels"),
        ("googlenet_bn", dict(auxiliary=True, input_shape=(None, 224, 3)), "needs images of known height and width"),
    ],
)
def test_bad_options(name, overrides, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.build(name, **overrides)


def test_smallest_images():
    kzoo.build("googlenet", input_shape=(79, 79, 3), auxiliary=True, **SMALL)
    for name in kzoo.list_models("googlenet*"):
        assert lookup(name).config.smallest_input == 32
    assert small(input_shape=(32, 32, 3), auxiliary=True)(pixels(1, 32, 32, 3))["head"].shape == (1, 5)
