"""Detectors on every kind of backbone, their heads by loops, and what they refuse."""

import keras
import numpy as np
import pytest
from dense_loops import convolve, normalise
from helpers import kinds, pixels, randomise, relative_error, slow_but, weights_without_gradient

import kzoo
from kzoo.detection.coding import LARGEST_GROWTH
from kzoo.errors import InvalidValueError
from kzoo.layers import DecodeBoxes
from kzoo.models.depths import depth_of_layers
from kzoo.models.detector import raw_outputs
from kzoo.registry import CLASSIFICATION, lookup
from kzoo.surgery import plan_folding
from kzoo.taps import tap_names

CLASSES = 3
TINY = dict(backbone="resnet18", backbone_options=dict(widths=(4, 6, 8, 10), depths=(1, 1, 1, 1)), channels=8)
TINY |= dict(head_depth=1, head_groups=4, num_classes=CLASSES)
TOLERANCE = 1e-5  # relative to the largest number, of what the network computes
MOST = 1e-4  # of boxes and scores, however much decoding multiplies that
QUICK = [("fcos", "vgg11_bn"), ("retinanet", "cifar_resnet20")]


def pairs() -> list[tuple[str, str]]:
    """Both detectors with a name of each kind of narrow classifier."""
    preferred = [backbone for _, backbone in QUICK]
    names = [name for name in kzoo.list_models() if lookup(name).task == CLASSIFICATION]
    backbones = kinds(sorted(names, key=lambda name: name not in preferred))
    return [(detector, backbone) for detector in ("fcos", "retinanet") for backbone in backbones]


def tiny(name: str = "fcos", size=(37, 70), **options) -> keras.Model:
    return randomise(kzoo.build(name, input_shape=(*size, 3), **TINY | options))


@pytest.mark.parametrize(("name", "backbone"), slow_but(QUICK, pairs()))
def test_goes_the_whole_path(name, backbone, tmp_path):
    """On an image that no stride divides: saved, folded, exported in one partition; gradients reach all weights."""
    entry = lookup(backbone)
    size = (entry.narrow_size + 11, entry.narrow_size + 6)
    options = TINY | dict(backbone=backbone, backbone_options=dict(entry.narrow), extra_levels=1)
    if name == "retinanet":
        options |= dict(scales=(1,), ratios=(0.5, 1), anchor_size=1)
    model = randomise(kzoo.build(name, input_shape=(*size, 3), **options))
    images = pixels(2, *size, 3)
    expected = {key: np.array(value) for key, value in model(images).items()}
    places = model.get_layer("head_boxes").places
    assert expected["boxes"].shape == (2, places.count, 4)
    assert expected["scores"].shape == (2, places.count, CLASSES)
    assert all(np.isfinite(value).all() for value in expected.values())
    boxes = expected["boxes"]
    assert (boxes[..., :2] <= boxes[..., 2:]).all()

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for key, value in loaded(images).items():
        np.testing.assert_array_equal(value, expected[key])
    folded = kzoo.fold_batch_norm(model)
    alone = kzoo.build(backbone, input_shape=(*places.padded, 3), include_top=False, **dict(entry.narrow))
    assert set(plan_folding(model).kept) == set(plan_folding(alone).kept)
    raw = {key: np.array(value) for key, value in raw_outputs(model)(images).items()}
    assert relative_error(raw_outputs(folded)(images), raw) < TOLERANCE
    bounds = bounds_of(raw, expected, model)
    found = folded(images)
    for key, bound in bounds.items():
        assert relative_error(found[key], expected[key]) < bound, key
    report = kzoo.export(folded, tmp_path / "model.tflite", calibration=images)
    assert report.xnnpack_partitions == 1
    for key, bound in bounds.items():
        assert report.outputs[key]["max_rel_error"] < bound, key

    left = never_moved(lambda seed: raw_outputs(randomise(model, seed)), images)
    if 2 not in levels_read(model):  # a tap that the detector does not read has its normalisation all the same
        left = {path for path in left if not path.startswith("stage1_tap_norm/")}
    if left:  # what training cannot feel in the backbone alone either
        assert left <= never_moved(lambda seed: randomise(alone, seed), pixels(2, *places.padded, 3))


def bounds_of(raw: dict[str, np.ndarray], expected: dict[str, np.ndarray], model: keras.Model) -> dict[str, float]:
    """How far boxes and scores may be off where what they are computed from is by `TOLERANCE`, but `MOST`."""
    decoder = model.get_layer("head_boxes")
    sides = (decoder.places.anchors[:, 2:] - decoder.places.anchors[:, :2]) / decoder.places.image[::-1]
    if decoder.kind == "retinanet":  # the centre moves by a share of the side, and half of the side grows by exp()
        sides = sides * (1 + np.exp(np.minimum(raw["offsets"][..., 2:], LARGEST_GROWTH)) / 2)
    largest = max(float(np.abs(raw[key]).max()) for key in raw.keys() - {"offsets"})
    slope = 2 / 27**0.5 if decoder.kind == "fcos" else 1 / 4  # of the root of two sigmoids, both of which err; of one
    grown = {
        "boxes": float(np.abs(raw["offsets"]).max() * sides.max()),
        "scores": largest * slope / float(expected["scores"].max()),
    }
    return {key: min(MOST, TOLERANCE * max(1.0, factor)) for key, factor in grown.items()}


def levels_read(model: keras.Model) -> set[int]:
    """Levels of the backbone that the pyramid reads."""
    return {int(layer.name[5]) for layer in model.layers if layer.name.endswith("_lateral")}


def never_moved(draw, images) -> set[str]:
    """Weights that get no gradient under any of some draws: what training cannot feel, or closed units each time."""
    left = set(weights_without_gradient(draw(0), images))
    for seed in range(1, 6):
        left = left and left & set(weights_without_gradient(draw(seed), images))
    return left


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
def test_heads_by_loops(name):
    """With batch normalisation of each level and P6 from the backbone: the same kernels on all levels."""
    model = tiny(name, head_norm="batch", extra_levels=1, extra="stride", head_depth=2)
    images = pixels(2, 37, 70, 3)
    maps = kzoo.pyramid(model, ["fpn_p3", "fpn_p4", "fpn_p5", "fpn_p6"])(images)
    expected = {"logits": [], "offsets": []} | ({"centerness": []} if name == "fcos" else {})
    for tap, value in maps.items():
        towers = {}
        for head in ("class", "box"):
            x = np.array(value)
            for number in (1, 2):
                x = convolve(x, model.get_layer(f"head_{head}_conv{number}").get_weights()[0], 0, padding=1)
                x = np.maximum(normalise(x, model.get_layer(f"head_{head}_{tap[4:]}_bn{number}")), 0)
            towers[head] = x
        for key, layer in (("logits", "class_logits"), ("offsets", "box_offsets"), ("centerness", "box_centerness")):
            if key in expected:
                x = convolve(towers[layer.split("_")[0]], *model.get_layer(f"head_{layer}").get_weights(), padding=1)
                x = np.maximum(x, 0) if (name, key) == ("fcos", "offsets") else x
                width = {"logits": CLASSES, "offsets": 4, "centerness": 1}[key]
                expected[key].append(x.reshape(len(x), -1, width))
    raw = raw_outputs(model)(images)
    assert list(raw) == list(expected)
    for key, value in raw.items():
        assert relative_error(value, np.concatenate(expected[key], axis=1)) < 1e-5
    scores = 1 / (1 + np.exp(-np.array(raw["logits"])))
    if name == "fcos":
        scores = np.sqrt(scores / (1 + np.exp(-np.array(raw["centerness"]))))
    assert relative_error(model(images)["scores"], scores) < 1e-5


def test_fine_tuning_starts_at_the_prior():
    """Every class has the probability 0.01 at every place; the bias is on the class head, and on no other."""
    model = kzoo.build("retinanet", input_shape=(64, 64, 3), **TINY)
    raw = raw_outputs(model)(pixels(2, 64, 64, 3))
    np.testing.assert_allclose(keras.ops.sigmoid(raw["logits"]), 0.01, rtol=0.5)
    assert not np.any(model.get_layer("head_box_offsets").bias)
    kernel = np.array(model.get_layer("head_class_conv1").kernel)
    assert abs(kernel.std() - 0.01) < 0.002


@pytest.mark.usefixtures("without_values")
def test_levels_are_options():
    model = kzoo.build("fcos", input_shape=(64, 96, 3), extra_levels=0, **TINY)
    assert tap_names(model)[-3:] == ["fpn_p3", "fpn_p4", "fpn_p5"]
    assert model.output["boxes"].shape == (None, 96 + 24 + 6, 4)
    model = kzoo.build("fcos", input_shape=(64, 96, 3), levels=("p4", "p5"), **TINY)
    assert tap_names(model)[-4:] == ["fpn_p4", "fpn_p5", "fpn_p6", "fpn_p7"]
    assert model.get_layer("head_boxes").levels == (4, 5, 6, 7)


@pytest.mark.usefixtures("without_values")
def test_heads_are_shared_and_the_deepest():
    few, many = (kzoo.build("fcos", input_shape=(64, 64, 3), extra_levels=n, **TINY) for n in (0, 2))
    heads = [[v.path for v in model.weights if v.path.startswith("head_")] for model in (few, many)]
    assert heads[0] == heads[1]
    depths = depth_of_layers(many)
    deepest = max(depths.values())
    assert {name for name in depths if name.startswith(("head_", "fpn_"))} == {
        name for name, depth in depths.items() if depth == deepest
    }


@pytest.mark.usefixtures("without_values")
def test_boxes_stay_float32_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = kzoo.build("fcos", input_shape=(64, 64, 3), **TINY)
    finally:
        keras.config.set_dtype_policy(before)
    assert {output.dtype for output in model.output.values()} == {"float32"}
    assert isinstance(model.get_layer("head_boxes"), DecodeBoxes)
    assert model.get_layer("head_boxes").compute_dtype == "float32"
    assert model.get_layer("head_class_conv1").compute_dtype == "float16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(backbone=None), "a detector stands on one"),
        (dict(extra="pool"), "use one of 'stride', 'stride_fpn'"),
        (dict(head_norm="layer"), "head_norm='layer' is not accepted"),
        (dict(head_norm="group", head_groups=3), "head_groups=3 do not divide channels=8"),
        (dict(extra_levels=-1), "extra_levels=-1 must be an integer, 0 or more"),
        (dict(ratios=()), r"ratios=\(\) must be numbers above 0"),
        (dict(scales=(0,)), r"scales=\(0,\) must be numbers above 0"),
        (dict(input_shape=(None, None, 3)), "must be the height and width in pixels"),
        (dict(classifier_activation="relu"), "classifier_activation='relu' is not accepted"),
        (dict(backbone="fpn"), "use a classifier"),
    ],
)
@pytest.mark.usefixtures("without_values")
def test_refuses(options, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.build("retinanet", **dict(input_shape=(64, 64, 3)) | TINY | dict(backbone_options={}) | options)


@pytest.mark.usefixtures("without_values")
def test_raw_outputs_are_of_detectors():
    with pytest.raises(InvalidValueError, match="cifar_resnet20 is no detector of the zoo"):
        raw_outputs(kzoo.build("cifar_resnet20", depths=(1, 1), widths=(4, 8)))
