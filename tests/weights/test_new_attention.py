"""Weights of a plain network in one with attention: it computes at first what the plain one does, and can learn."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise, relative_error, slow_but, weights_of, weights_without_gradient

import kzoo
from kzoo.errors import WeightsError
from kzoo.layers import ATTENTION
from kzoo.models.slots import plain_of
from kzoo.registry import lookup
from kzoo.taps import tap_names
from kzoo.weights import resolve
from kzoo.weights.new_attention import attention_layers, start_as_nothing

GATES = ("se", "cbam", "channel_attention", "spatial_attention", "residual_attention")
# A network without attention -> overrides that make it small, size of its images
PLAIN = {
    "resnet18": (dict(depths=(2, 1), widths=(8, 16)), (37, 29)),
    "resnet50": (dict(depths=(1, 2), widths=(4, 8)), (37, 29)),
    "resnet50_v1": (dict(depths=(1, 2), widths=(4, 8)), (37, 29)),
    "resnet50_v2": (dict(depths=(2, 2), widths=(4, 8)), (37, 29)),
    "plain18": (dict(depths=(2, 1), widths=(8, 16)), (37, 29)),
    "cifar_resnet20": (dict(depths=(2, 1), widths=(8, 16)), (21, 17)),
    "vgg11": (dict(depths=(1, 2), widths=(8, 16), map_size=None, dense_units=12), (21, 17)),
    "vgg11_bn": (dict(depths=(1, 2), widths=(8, 16), map_size=None, dense_units=12), (21, 17)),
    "googlenet": (dict(modules=("3a", "4a", "4d", "5a"), width=0.125), (67, 65)),
    "googlenet_bn": (dict(modules=("3a", "4a", "4d", "5a"), width=0.125), (67, 65)),
    "inception_v3": (dict(modules=("5b", "6a", "6b", "7a", "7b"), width=0.125), (141, 139)),
    "residual_attention56": (dict(modules=(0, 0, 1), widths=(4, 4, 6, 8), trunk_units=1, last_units=1), (67, 65)),
    "swin_tiny": (dict(depths=(1, 2), num_heads=(1, 2), width=8, layer_scale=0.5), (37, 29)),
    "nat_small": (dict(depths=(1, 2), num_heads=(1, 2), width=8, kernel_size=3, layer_scale=0.5), (37, 29)),
    "simple_cnn": (dict(widths=(8, 12), dense_units=12), (13, 15)),
    "unet_padded": (dict(widths=(4, 8)), (21, 17)),
}
DEFAULT = [
    ("cifar_resnet20", "cbam"),
    ("vgg11", "channel_attention"),
    ("cifar_resnet20", "residual_attention"),
    ("nat_small", "se"),
    ("resnet18", "non_local"),
]
STAGES = [("resnet18", "non_local"), ("resnet50_v2", "non_local"), ("vgg11_bn", "non_local")]
PAIRS = [(plain, attention) for plain in PLAIN for attention in GATES] + STAGES


def build(name: str, plain: str, **options) -> keras.Model:
    overrides, size = PLAIN[plain]
    options = dict(input_shape=(*size, 3), num_classes=5, classifier_activation=None) | overrides | options
    return kzoo.build(name, **options)


def plain_file(plain: str, directory, **options) -> tuple[keras.Model, str]:
    """A plain network with random weights and statistics, and its file."""
    model = randomise(build(plain, plain, **options))
    path = directory / "plain.weights.h5"
    model.save_weights(path)
    return model, str(path)


@pytest.mark.parametrize(("plain", "attention"), slow_but(DEFAULT, PAIRS))
def test_a_network_with_attention_starts_as_the_plain_one(plain, attention, tmp_path):
    expected, path = plain_file(plain, tmp_path)
    model = build(plain, plain, attention=attention, weights=path)
    images = pixels(3, *model.input.shape[1:])
    assert attention_layers(model)
    assert max(map(relative_error, with_taps(model)(images), with_taps(expected)(images))) < 1e-5
    names, learning = {layer.name for layer in attention_layers(model)}, set()
    for seed in range(9):  # a hidden layer of one unit may be closed under one draw, and open under another
        learning |= names_with_gradient(model, images)
        if names <= learning:
            break
        draw_hidden_layers(model, seed)
    assert names - learning == set()


def with_taps(model: keras.Model) -> keras.Model:
    """The model to its output and all its taps."""
    return keras.Model(model.input, [model.output, *(model.get_layer(tap).output for tap in tap_names(model))])


def names_with_gradient(model: keras.Model, images: np.ndarray) -> set[str]:
    """The layers of which some weight gets a gradient."""
    without = weights_without_gradient(model, images)
    return {v.path.partition("/")[0] for v in model.trainable_variables if v.path not in without}


def draw_hidden_layers(model: keras.Model, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if "attention" in variable.path and variable.path.endswith("reduce/kernel"):
            variable.assign(rng.normal(size=variable.shape))


def test_all_of_a_new_attention_learns_from_the_second_step(tmp_path):
    _, path = plain_file("cifar_resnet20", tmp_path)
    for attention in ("se", "spatial_attention"):
        model = build("cifar_resnet20", "cifar_resnet20", attention=attention, weights=path)
        images = pixels(4, *model.input.shape[1:])
        model.compile(keras.optimizers.SGD(1e-3), "mse", run_eagerly=True)
        model.train_on_batch(images, np.ones((4, 5), "float32"))
        assert weights_without_gradient(model, images) == []


def test_every_mechanism_of_a_branch_starts_as_nothing_or_is_known_not_to():
    starts = {name for name, entry in ATTENTION.items() if hasattr(entry.layer, "neutral")}
    assert starts == {*GATES, "non_local"}
    assert {name for name, entry in ATTENTION.items() if entry.slot != "spatial"} - starts == {"kernel_regression"}


def test_gates_are_made_up_for_in_powers_of_two(tmp_path):
    """Half and quarter gates change no digit of any weight or output, as 3/2 does."""
    expected, path = plain_file("cifar_resnet20", tmp_path)
    images = pixels(2, *expected.input.shape[1:])
    for attention, times in (("se", 2), ("cbam", 4)):
        model = build("cifar_resnet20", "cifar_resnet20", attention=attention, weights=path)
        np.testing.assert_array_equal(model(images), expected(images))
        for layer, factor in (("stage1_block1_bn2", times), ("stage1_block1_bn1", 1)):
            before, after = (each.get_layer(layer).get_weights() for each in (expected, model))
            np.testing.assert_array_equal(after[:2], factor * np.array(before[:2]))  # gamma and beta
            np.testing.assert_array_equal(after[2:], before[2:])


def test_the_report_and_the_log_tell_what_is_new(tmp_path, caplog):
    expected, path = plain_file("cifar_resnet20", tmp_path)
    model = build("cifar_resnet20_cbam", "cifar_resnet20")
    report = kzoo.load_weights(model, path, new_attention=True)
    attention = [variable.path for layer in attention_layers(model) for variable in layer.weights]
    assert sorted(report.new) == sorted(attention)
    assert (report.initialised, report.missing, report.unexpected) == ([], [], [])
    assert len(report.loaded) == len(expected.weights)
    assert f" {len(attention)} new, 0 missing" in str(report)
    build("cifar_resnet20_cbam", "cifar_resnet20", weights=path)
    assert f"has no attention: its {len(attention)} weights are new" in caplog.text


def test_everything_else_stays_strict(tmp_path):
    _, path = plain_file("cifar_resnet20", tmp_path)
    model = randomise(build("cifar_resnet20_cbam", "cifar_resnet20"))
    before = weights_of(model)
    with pytest.raises(WeightsError, match=r"\d+ are missing: stage1_block1_attention"):
        kzoo.load_weights(model, path)  # unless it is asked for
    smaller = build("cifar_resnet20_cbam", "cifar_resnet20", depths=(1, 1))
    with pytest.raises(WeightsError, match=r"are unexpected: stage1_block2"):
        kzoo.load_weights(smaller, path, new_attention=True)
    # a file with an attention is read as it is, and one with a part of it refused
    part, whole = tmp_path / "part.weights.h5", tmp_path / "whole.weights.h5"
    build("cifar_resnet20", "cifar_resnet20", attention=in_the_first_block).save_weights(part)
    with pytest.raises(WeightsError, match=r"14 are missing: stage1_block2_attention/channel"):
        kzoo.load_weights(model, part, new_attention=True)
    assert all(np.array_equal(old, new) for old, new in zip(before, weights_of(model), strict=True))
    model.save_weights(whole)
    report = kzoo.load_weights(model, whole, new_attention=True)
    assert (report.new, len(report.loaded)) == ([], len(model.weights))


def in_the_first_block(x, name):
    return ATTENTION["cbam"].layer(name=name)(x) if name.startswith("stage1_block1") else x


def own_attention(x, name):
    return keras.layers.Dense(x.shape[-1], name=name)(x)


@pytest.mark.parametrize("attention", ["stand_alone", "kernel_regression", own_attention])
def test_attention_that_cannot_start_as_nothing_is_refused(attention, tmp_path):
    _, path = plain_file("cifar_resnet20", tmp_path, widths=(16, 16))
    with pytest.raises(WeightsError, match="does not fit"):
        build("cifar_resnet20", "cifar_resnet20", attention=attention, weights=path, widths=(16, 16))


def reduction(attention: str | None, scale: bool = True, pooled: bool = True) -> keras.Model:
    """What Inception's reductions are: convolutions beside a pool, whose map others read too, and a convolution."""
    image = keras.Input((9, 7, 3))
    x = keras.layers.ReLU()(keras.layers.Conv2D(4, 3, name="conv1")(image))
    y = keras.layers.BatchNormalization(scale=scale, name="bn")(keras.layers.Conv2D(4, 1, name="conv2")(x))
    y = keras.layers.Concatenate()([y, keras.layers.MaxPooling2D(1)(x)]) if pooled else y
    if attention:
        y = ATTENTION[attention].layer(name="attention")(y)
    y = keras.layers.MaxPooling2D(2)(y)
    return randomise(keras.Model(image, keras.layers.Conv2D(2, 1, name="conv3")(y)))


def load(model: keras.Model, plain: keras.Model) -> None:
    arrays = {variable.path: np.array(variable) for variable in plain.weights}
    start_as_nothing(model, arrays)
    for variable in model.weights:
        variable.assign(arrays.get(variable.path, variable))


@pytest.mark.parametrize(("scale", "pooled"), [(True, True), (False, False), (True, False)])
def test_what_reads_a_gated_map_makes_up_for_it_where_nothing_before_can(scale, pooled):
    model, plain = reduction("se", scale, pooled), reduction(None, scale, pooled)
    load(model, plain)
    images = pixels(2, 9, 7, 3)
    np.testing.assert_array_equal(model(images), plain(images))
    ahead = not np.array_equal(model.get_layer("conv3").kernel, plain.get_layer("conv3").kernel)
    assert ahead == (pooled or not scale)


def test_where_nothing_can_make_up_for_a_gate_the_model_is_refused():
    model, plain = (reduction(attention, scale=False) for attention in ("se", None))
    gated = keras.Model(model.input, [model.output, model.get_layer("attention").output])  # and somebody looks at it
    with pytest.raises(WeightsError, match=r"no weights for attention, whose gates start at 0.5.* build without"):
        load(gated, plain)


def test_a_backbone_with_attention_starts_from_plain_weights(tmp_path):
    trunk = dict(depths=(1, 2), widths=(4, 8))
    plain, path = plain_file("resnet50", tmp_path)
    options = dict(backbone_options=trunk, input_shape=(37, 29, 3), num_classes=3, backbone_weights=path)
    model = kzoo.build("unet", backbone="resnet50_cbam", **options)
    images = pixels(2, 37, 29, 3)
    found, expected = kzoo.backbone(model, "resnet50_cbam")(images), kzoo.backbone(plain, "resnet50")(images)
    assert max(relative_error(found[tap], expected[tap]) for tap in expected) < 1e-5


def test_names_of_the_plain_network_are_known():
    assert resolve("resnet50_cbam", "imagenet") == resolve("resnet50", "imagenet")
    assert resolve("resnet50_nl5", "a2_in1k") == resolve("resnet50", "a2_in1k")
    assert resolve("resnet50_se", "imagenet") != resolve("resnet50", "imagenet")  # it has its own
    with pytest.raises(WeightsError, match="pass one of imagenet, a1_in1k"):
        resolve("resnet50_cbam", "a5_in1k")
    with pytest.raises(
        WeightsError, match="no checkpoint known for resnet50_sasa, which has no public weights; pass 'hf"
    ):
        resolve("resnet50_sasa", "imagenet")


def test_every_variant_of_a_network_with_public_weights_starts_from_it():
    variants = {name for name in kzoo.list_models() if name.endswith(("_se", "_cbam", "_nl", "_nl5"))}
    found = {name: plain_of(lookup(name), lookup(name).config) for name in variants}
    assert {name for name, plain in found.items() if plain is None} == set()
    assert all(name.startswith(plain.name + "_") for name, plain in found.items())


@pytest.mark.usefixtures("without_values")
def test_describe_tells_whose_weights_a_network_starts_from():
    assert kzoo.describe("resnet18_cbam").starts_from == "resnet18"
    assert kzoo.describe("resnet18", attention="se").starts_from == "resnet18"
    assert kzoo.describe("resnet18").starts_from is None
    assert kzoo.describe("cifar_resnet20_se").starts_from is None  # no public weights
