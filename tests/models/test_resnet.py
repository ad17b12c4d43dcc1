"""ResNets: parameter counts, multiply-adds, names, shortcuts, and equality with keras.applications."""

import re

import keras
import numpy as np
import pytest
from helpers import feature_map, one_of_each_kind, pixels, randomise, relative_error, slow_but

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.graph import count_macs
from kzoo.layers import ATTENTION
from kzoo.models.slots import slot_of
from kzoo.registry import lookup
from kzoo.zoo import count_parameters

# trainable parameters and GMACs at 224×224 with 1000 classes, as timm counts them
TIMM = {
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "resnet18_se": (11_779_624, 1.814),
    "resnet50_se": (28_088_024, 4.092),
    "resnet18_cbam": (11_777_352, 1.815),
    "resnet50_cbam": (28_073_576, 4.096),
}
# all parameters, moving statistics among them, as keras.applications counts them
APPLICATIONS = {
    "resnet50_v1": 25_636_712,
    "resnet101_v1": 44_707_176,
    "resnet152_v1": 60_419_944,
    "resnet50_v2": 25_613_800,
    "resnet101_v2": 44_675_560,
    "resnet152_v2": 60_380_648,
}


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", slow_but(("resnet18", "resnet50", "resnet18_se", "resnet50_cbam"), TIMM))
def test_size_and_cost_are_timms(name):
    parameters, gmacs = TIMM[name]
    info = kzoo.describe(name)
    assert info.trainable_parameters == parameters
    assert round(info.macs / 1e9, 3) == gmacs


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", slow_but(("resnet50_v1", "resnet50_v2"), APPLICATIONS))
def test_size_is_keras_applications(name):
    assert kzoo.build(name).count_params() == APPLICATIONS[name]


@pytest.mark.usefixtures("without_values")
def test_cost_of_v1():
    model = kzoo.build("resnet50_v1")
    macs = count_macs(model)
    assert round(macs / 1e9, 3) == 3.858  # the CBAM paper's baseline, Table 4
    biases = sum(np.prod(layer.output.shape[1:]) for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert round((macs + biases) / 1e9, 2) == 3.87  # keras.applications' figure counts the biases' additions


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("depth", [18, 34])
def test_plain_network_is_the_residual_one_without_projections(depth):
    projections = sum(a * b + 2 * b for a, b in ((64, 128), (128, 256), (256, 512)))  # 1×1 kernels and their norms
    assert count_parameters(kzoo.build(f"plain{depth}")) == TIMM[f"resnet{depth}"][0] - projections


def cifar_parameters(n: int) -> int:
    """Section 4.2: a 3×3 stem, 2n convolutions of each width, no biases but the classifier's."""
    total = 9 * 3 * 16 + 2 * 16
    for before, width in ((16, 16), (16, 32), (32, 64)):
        total += 9 * before * width + (2 * n - 1) * 9 * width * width + 2 * n * 2 * width
    return total + 64 * 10 + 10


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("n", slow_but((3, 5), (3, 5, 7, 9, 18)))
def test_size_of_cifar_networks(n):
    assert count_parameters(kzoo.build(f"cifar_resnet{6 * n + 2}")) == cifar_parameters(n)
    if n in (3, 9):
        assert count_parameters(kzoo.build(f"cifar_plain{6 * n + 2}")) == cifar_parameters(n)


@pytest.mark.quick
@pytest.mark.usefixtures("without_values")
def test_size_and_cost_of_cifar_resnet20():
    info = kzoo.describe("cifar_resnet20")
    assert info.trainable_parameters == 269_722
    assert round(info.macs / 1e9, 3) == 0.041
    options_b = count_parameters(kzoo.build("cifar_resnet20", shortcut="projection"))
    assert options_b == 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


NAME = re.compile(
    r"image|preprocessing|p\d|final_(bn|relu)|head_(pool|dense|activation)|stem_(conv(_pad)?|attention|bn|relu|pool(_pad)?)"
    r"|stage\d+_block\d+_((conv|bn|relu)\d|conv\d_pad|shortcut(_conv|_bn)?|add|attention(_pool)?)|stage\d+_attention\d"
)


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize(
    "name", one_of_each_kind([name for name in kzoo.list_models() if lookup(name).family == "resnet"])
)
def test_every_layer_has_a_name_of_the_contract(name):
    model = kzoo.build(name, input_shape=(32, 32, 3), **lookup(name).narrow)
    assert [layer.name for layer in model.layers if not NAME.fullmatch(layer.name)] == []
    blocks = sum(lookup(name).narrow["depths"])
    attention = sum(re.fullmatch(r"stage\d_block\d_attention", layer.name) is not None for layer in model.layers)
    assert attention == (blocks if slot_of(lookup(name).config.attention) in ("branch", "spatial") else 0)


@pytest.mark.usefixtures("without_values")
def test_shortcut_options_differ_in_their_strided_blocks():
    kinds = {}
    for shortcut in ("padding", "projection", "none"):
        model = kzoo.build("cifar_resnet20", shortcut=shortcut)
        kinds[shortcut] = {layer.name: type(layer).__name__ for layer in model.layers if "shortcut" in layer.name}
        assert sum(layer.name.endswith("_add") for layer in model.layers) == (0 if shortcut == "none" else 9)
    assert kinds["padding"] == {"stage2_block1_shortcut": "Subsample", "stage3_block1_shortcut": "Subsample"}
    assert kinds["projection"] == {
        f"stage{stage}_block1_shortcut_{kind}": layer
        for stage in (2, 3)
        for kind, layer in (("conv", "Conv2D"), ("bn", "BatchNormalization"))
    }
    assert kinds["none"] == {}


def block_output(shortcut: str) -> tuple[np.ndarray, np.ndarray, keras.Model]:
    """Input, output and model of a strided block whose branch gives zeros, so that the shortcut is seen alone."""
    model = randomise(kzoo.build("cifar_resnet20", shortcut=shortcut, depths=(1, 1), widths=(4, 8)))
    norm = model.get_layer("stage2_block1_bn2")
    norm.set_weights([np.zeros(8), np.zeros(8), *norm.get_weights()[2:]])
    maps = keras.Model(model.inputs, [model.get_layer("p0").output, model.get_layer("p1").output])
    x, y = maps([pixels(2, 32, 32, 3)])
    return np.array(x), np.array(y), model


def test_option_a_copies_every_second_pixel():
    x, y, _ = block_output("padding")
    np.testing.assert_array_equal(y[..., 2:6], x[:, ::2, ::2])
    assert not y[..., [0, 1, 6, 7]].any()


@pytest.mark.quick
def test_option_b_projects_every_second_pixel():
    x, y, model = block_output("projection")
    kernel = np.array(model.get_layer("stage2_block1_shortcut_conv").kernel)[0, 0]
    gamma, beta, mean, variance = model.get_layer("stage2_block1_shortcut_bn").get_weights()
    expected = (x[:, ::2, ::2] @ kernel - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    assert relative_error(y, np.maximum(expected, 0)) < 1e-5


def test_a_plain_block_has_its_branch_alone():
    _, y, _ = block_output("none")
    assert not y.any()


def test_attention_is_a_name_or_a_callable():
    seen = []

    def halve(x, name):
        seen.append(name)
        return keras.layers.Rescaling(0.5, name=name)(x)

    model = kzoo.build("cifar_resnet20", attention=halve, depths=(1, 2), widths=(4, 8))
    assert seen == ["stage1_block1_attention", "stage2_block1_attention", "stage2_block2_attention"]
    last = model.get_layer("stage2_block2_attention")
    assert last.input is model.get_layer("stage2_block2_bn2").output  # after the branch's last normalisation ...
    assert model.get_layer("stage2_block2_add").input[1] is last.output  # ... and before the addition

    by_name = kzoo.build("cifar_resnet20", attention="cbam", depths=(1, 2), widths=(4, 8))
    by_call = kzoo.build("cifar_resnet20", attention=lambda x, name: ATTENTION["cbam"].layer(name=name)(x),
                         depths=(1, 2), widths=(4, 8))  # fmt: skip
    by_call.set_weights(randomise(by_name).get_weights())
    images = pixels(2, 32, 32, 3)
    np.testing.assert_array_equal(by_call(images), by_name(images))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(depths=(2, 2)), r"depths=\(2, 2\) and widths=\(64, 128, 256, 512\) must have one number per stage"),
        (dict(depths=(), widths=()), "one number per stage"),
        (dict(widths=(8, 8, 0, 8)), r"widths=\(8, 8, 0, 8\) must be a tuple of positive integers"),
        (dict(widths=64), "widths=64"),
        (dict(block="inverted"), "block='inverted' is not accepted"),
        (dict(stem="s2d"), "stem='s2d'"),
        (dict(shortcut="A"), "shortcut='A' .* 'projection', 'padding', 'none'"),
        (dict(stride_conv=3), "stride_conv=3"),
        (dict(stride_block="middle"), "stride_block='middle'"),
        (dict(preactivation=True), "preactivation=True needs block='bottleneck'"),
        (dict(attention="sam"), "attention='sam' is not accepted; use one of 'se', 'cbam'"),
        (dict(attention=lambda x, name: keras.layers.MaxPooling2D(name=name)(x)), "must return a map of shape"),
        (dict(attention=lambda x, name: None), "must return a map of shape"),
    ],
)
def test_bad_overrides(overrides, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.build("resnet18", **overrides)


def applications_name(name: str, preactivation: bool) -> str:
    """What keras.applications calls a layer of the zoo."""
    name = {"stem_conv": "conv1_conv", "stem_bn": "conv1_bn", "final_bn": "post_bn", "head_dense": "predictions"}.get(
        name, name
    )
    match = re.fullmatch(r"stage(\d)_block(\d+)_(shortcut_)?(conv|bn)(\d?)", name)
    if not match:
        return name
    stage, block, _, kind, index = match.groups()
    index = int(index or 0)
    if preactivation and kind == "bn":
        index -= 1
    return f"conv{int(stage) + 1}_block{block}_" + (
        "preact_bn" if index == 0 and kind == "bn" and preactivation else f"{index}_{kind}"
    )


def transplant(model, theirs) -> None:
    """Copies all the weights of a keras.applications model into one of the zoo."""
    preactivation = model.name.endswith("_v2")
    taken = []
    for layer in model.layers:
        if layer.weights:
            taken.append(applications_name(layer.name, preactivation))
            layer.set_weights(theirs.get_layer(taken[-1]).get_weights())
        if isinstance(layer, keras.layers.BatchNormalization):
            assert layer.epsilon == theirs.get_layer(taken[-1]).epsilon  # 1.001e-5: too small to see in the logits
    assert sorted(taken) == sorted(layer.name for layer in theirs.layers if layer.weights)


@pytest.mark.parametrize(
    ("name", "factory"),
    [
        ("resnet50_v1", "ResNet50"),
        ("resnet50_v2", "ResNet50V2"),
        pytest.param("resnet101_v1", "ResNet101", marks=pytest.mark.slow),
        pytest.param("resnet152_v1", "ResNet152", marks=pytest.mark.slow),
        pytest.param("resnet101_v2", "ResNet101V2", marks=pytest.mark.slow),
        pytest.param("resnet152_v2", "ResNet152V2", marks=pytest.mark.slow),
    ],
)
def test_logits_equal_keras_applications(name, factory):
    options = dict(input_shape=(96, 64, 3), classifier_activation=None)
    theirs = randomise(getattr(keras.applications, factory)(weights=None, **options))
    model = kzoo.build(name, include_preprocessing=False, **options)
    transplant(model, theirs)
    images = feature_map(2, 96, 64, 3)
    error = relative_error(model(images), theirs(images))
    print(f"{name}: {error:.2g}")
    assert error < 1e-5


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize(
    ("name", "millions"), slow_but([("resnet26", 10.3)], [("resnet26", 10.3), ("resnet38", 14.2), ("resnet50", 18.0)])
)
def test_stand_alone_attention_saves_the_paper_s_parameters(name, millions):
    """arXiv:1906.05909, Table 1: 10.3M, 14.1M and 18.0M, 25 to 30 % fewer than with convolutions."""
    with_attention = kzoo.describe(f"{name}_sasa")
    assert round(with_attention.trainable_parameters / 1e6, 1) == millions
    convolutions = kzoo.describe(f"{name}_sasa", attention=None)
    assert 0.24 < 1 - with_attention.trainable_parameters / convolutions.trainable_parameters < 0.30
    full = kzoo.describe(f"{name}_sasa_full")
    assert abs(full.trainable_parameters / with_attention.trainable_parameters - 1) < 0.01
    assert list(full.taps) == ["p2", "p3", "p4", "p5"]


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize(
    ("name", "blocks"),
    [("resnet50_nl", 1), ("resnet50_nl5", 5), pytest.param("resnet101_nl5", 5, marks=pytest.mark.slow)],
)
def test_non_local_variants(name, blocks):
    model = kzoo.build(name, input_shape=(64, 64, 3))
    inserted = [layer for layer in model.layers if re.fullmatch(r"stage\d_attention\d", layer.name)]
    assert len(inserted) == blocks
    plain = kzoo.describe(name.split("_")[0], stage_attention=None)
    assert kzoo.describe(name).trainable_parameters == plain.trainable_parameters + sum(
        sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights) for layer in inserted
    )
