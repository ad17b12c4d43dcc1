"""Attention by name in a network: every mechanism in its slot goes the whole path."""

import keras
import numpy as np
import pytest
from helpers import feature_map, pixels, randomise, relative_error, weights_of, weights_without_gradient

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.layers import ATTENTION, CBAM, WindowAttention
from kzoo.models.slots import stage_positions
from kzoo.surgery import plan_folding

SMALL = dict(depths=(2, 2), widths=(16, 32), input_shape=(64, 56, 3), num_classes=10, classifier_activation=None)


def small(name="resnet50", **options):
    return kzoo.build(name, **SMALL | options)


def attentions(model) -> list[str]:
    return [layer.name for layer in model.layers if layer.name.rstrip("0123456789").endswith("attention")]


@pytest.mark.slow  # a network of each slot goes its way in tests/test_whole_path.py
@pytest.mark.parametrize("attention", ATTENTION)
def test_whole_path_by_name(attention, tmp_path):
    model = randomise(small(attention=attention))
    images = pixels(4, *model.input.shape[1:])
    expected = np.array(model(images))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(images), expected)

    folded = kzoo.fold_batch_norm(model)
    assert plan_folding(model).kept == {}
    assert not any("moving" in variable.path for variable in folded.variables)
    assert relative_error(folded(images), expected) < 1e-5
    report = kzoo.export(folded, tmp_path / "model.tflite", calibration=images)
    assert report.xnnpack_partitions == 1
    assert report.max_rel_error < 1e-5


# Biases that a softmax or the batch normalisation behind them takes out again: their gradient is rounding alone.
IDLE = ("_attention/proj/bias", "_attention1/g/bias", "_attention1/phi/bias", "_attention1/out/bias")


@pytest.mark.slow  # each layer by itself, and networks in tests/test_whole_path.py, learn by default
@pytest.mark.parametrize("attention", ATTENTION)
def test_learns_under_xla(attention):
    model = randomise(small(attention=attention))
    images, labels = pixels(4, *model.input.shape[1:]), np.arange(4)
    assert weights_without_gradient(model, images, IDLE) == []
    before = weights_of(model)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=True)
    assert np.isfinite(model.train_on_batch(images, labels))
    unmoved = [w.path for w, old in zip(model.weights, before, strict=True) if np.array_equal(w, old)]
    assert [path for path in unmoved if not path.endswith(IDLE)] == []


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", ["resnet50", "resnet50_v1", "resnet50_v2"])
def test_slots(name):
    branch = small(name, attention="channel_attention")
    assert attentions(branch) == [f"stage{s}_block{b}_attention" for s in (1, 2) for b in (1, 2)]
    spatial = small(name, attention="stand_alone")
    assert attentions(spatial) == attentions(branch)
    names = {layer.name for layer in spatial.layers}
    assert not {layer for layer in names if layer.endswith("conv2")}
    stage = small(name, attention="non_local")
    assert attentions(stage) == ["stage1_attention1"]
    reads = stage.get_layer("stage2_block1_conv1").input
    order = [layer.name for layer in stage.layers]
    assert order.index("stage1_block1_add") < order.index("stage1_attention1") < order.index("stage1_block2_add")
    assert reads.shape == stage.get_layer("stage1_block2_add").output.shape or name == "resnet50_v2"


@pytest.mark.usefixtures("without_values")
def test_basic_blocks_replace_their_second_convolution():
    model = small("resnet18", attention="window")
    names = {layer.name for layer in model.layers}
    assert "stage1_block1_conv1" in names
    assert "stage1_block1_conv2" not in names


def test_stand_alone_pools_where_the_convolution_has_a_stride():
    """Bottleneck by hand from its layers: 1×1, attention, 2×2 average pooling, 1×1 (arXiv:1906.05909, section 3.2)."""
    model = randomise(small(attention="stand_alone"))
    get = model.get_layer
    x = feature_map(2, *get("stage2_block1_conv1").input.shape[1:])
    y = get("stage2_block1_attention")(keras.ops.relu(get("stage2_block1_bn1")(get("stage2_block1_conv1")(x))))
    y = np.array(y).reshape(2, 8, 2, 7, 2, 32).mean((2, 4))
    y = keras.ops.relu(get("stage2_block1_bn2")(y))
    y = get("stage2_block1_bn3")(get("stage2_block1_conv3")(y))
    shortcut = get("stage2_block1_shortcut_bn")(get("stage2_block1_shortcut_conv")(x))
    part = keras.Model(get("stage1_block2_relu3").output, get("stage2_block1_relu3").output)
    assert relative_error(part(x), keras.ops.relu(y + shortcut)) < 1e-5


@pytest.mark.quick
def test_windows_shift_in_every_second_block():
    model = small(attention="window", depths=(3, 1))
    shifts = [model.get_layer(name).shift_size for name in attentions(model)]
    assert shifts == [(0, 0), (3, 3), (0, 0), (0, 0)]


@pytest.mark.parametrize(
    ("depth", "count", "after"), [(6, 1, [5]), (6, 3, [1, 3, 5]), (4, 2, [1, 3]), (2, 1, [1]), (1, 1, [1]), (3, 0, [])]
)
def test_stage_positions(depth, count, after):
    assert stage_positions(depth, count) == after


@pytest.mark.usefixtures("without_values")
def test_non_local_goes_where_the_paper_puts_it():
    one = kzoo.build("resnet50", input_shape=(64, 64, 3), attention="non_local")
    assert attentions(one) == ["stage3_attention1"]
    before = one.get_layer("stage3_attention1").input
    assert before is one.get_layer("stage3_block5_relu3").output
    five = kzoo.build("resnet50", input_shape=(64, 64, 3), attention="non_local", stage_attention=(0, 2, 3, 0))
    assert attentions(five) == [f"stage{s}_attention{i}" for s, i in ((2, 1), (2, 2), (3, 1), (3, 2), (3, 3))]


def test_new_non_local_block_changes_nothing():
    plain = randomise(small())
    model = small(attention="non_local")
    for layer in plain.layers:
        model.get_layer(layer.name).set_weights(layer.get_weights())
    images = pixels(2, *model.input.shape[1:])
    np.testing.assert_array_equal(model(images), plain(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(attention="nonlocal"), "attention='nonlocal' is not accepted; .*'non_local'"),
        (dict(attention=CBAM), r"is a layer or its class; .* lambda x, name: CBAM\(name=name\)\(x\)"),
        (dict(attention=WindowAttention(2)), r"lambda x, name: WindowAttention\(name=name\)\(x\)"),
        (
            dict(stage_attention=(0, 1)),
            r"stage_attention=\(0, 1\) needs an attention .*\(non_local\), got attention=None",
        ),
        (dict(attention="se", stage_attention=(0, 1)), "got attention='se'"),
        (dict(attention="non_local", stage_attention=(1,)), "one number, 0 or more, for each stage"),
        (dict(attention="non_local", stage_attention=(0, -1)), "one number, 0 or more, for each stage"),
        (dict(attention="non_local", stage_attention=(0, 2)), "a stage of 2 blocks has room for 1 .*, not 2"),
        (dict(attention="neighborhood", input_shape=(32, 32, 3)), "needs a map of at least 7×7 pixels, got 4×4"),
        (dict(attention="stand_alone", widths=(12, 32)), "num_heads=8 does not divide filters=12"),
        (dict(attention="window", input_shape=(None, None, 3)), "needs maps of known height and width"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidValueError, match=message):
        small(**options)
