"""Feature pyramids: their maps, the designs that the paper compares, and mistakes. Numbers: test_fpn_parity.py."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise, relative_error, slow_but

import kzoo
from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.graph import count_macs, read_graph
from kzoo.models.fpn import DESIGNS

TRUNK = dict(depths=(1, 1, 1, 1), widths=(4, 6, 8, 10))
NARROW = dict(backbone="resnet18", backbone_options=TRUNK, channels=12, head_width=8, num_classes=3)
SIZE = (75, 70, 3)


def narrow(**options):
    return kzoo.build("fpn", **{"input_shape": SIZE, "classifier_activation": None, **NARROW, **options})


@pytest.mark.parametrize("extra", ["pool", "stride"])
@pytest.mark.usefixtures("without_values")
def test_emits_p2_to_p7(extra):
    model = narrow(include_top=False, extra_levels=2, extra=extra)
    shapes = {name: each.shape for name, each in model.output.items()}
    sides = {2: (19, 18), 3: (10, 9), 4: (5, 5), 5: (3, 3), 6: (2, 2), 7: (1, 1)}
    assert shapes == {f"fpn_p{level}": (None, *size, 12) for level, size in sides.items()}


def test_the_pyramid_of_the_whole_model_is_that_without_the_top():
    whole = randomise(narrow(extra_levels=2))
    levels = ["fpn_p2", "fpn_p5", "fpn_p7"]
    pyramid, neck = kzoo.pyramid(whole, levels), narrow(extra_levels=2, include_top=False)
    values = {weight.path: weight for weight in whole.weights}
    neck.set_weights([values[weight.path] for weight in neck.weights])
    images = pixels(2, *SIZE)
    maps = neck(images)
    for level, each in pyramid(images).items():
        np.testing.assert_array_equal(each, maps[level])
    assert set(pyramid(images)) == set(levels)
    with pytest.raises(UnknownNameError, match=r"fpn has no tap 'fpn_p8'; it has p1, .*, p5, fpn_p2, .*, fpn_p7"):
        kzoo.pyramid(whole, ["fpn_p8"])


def maps_of(model) -> list[str]:
    return [layer.name for layer in model.layers if layer.name.startswith("fpn_p") and "_" not in layer.name[4:]]


@pytest.mark.parametrize(
    ("design", "levels"),
    [
        ("feature_pyramid", "2345"),
        ("image_pyramid", "2345"),
        ("single_map", "5"),
        ("pyramidal_hierarchy", "2345"),
        ("finest_level", "2"),
    ],
)
@pytest.mark.usefixtures("without_values")
def test_each_design_has_its_maps_and_the_size_of_the_image(design, levels):
    model = narrow(design=design)
    assert sorted(maps_of(model)) == [f"fpn_p{level}" for level in levels]
    assert model.output.shape == (None, *SIZE[:2], 3)
    has_way_down = any(layer.name.endswith("_add") and layer.name.startswith("fpn_") for layer in model.layers)
    assert has_way_down == (design in ("feature_pyramid", "finest_level"))


def test_designs_without_a_way_down_do_not_see_the_coarser_maps():
    """The finest map follows from p2 alone in a hierarchy, and from p5 too in a feature pyramid."""
    images = pixels(1, *SIZE)
    for design, sees in (("pyramidal_hierarchy", False), ("feature_pyramid", True), ("finest_level", True)):
        model = randomise(narrow(design=design))
        finest = kzoo.pyramid(model, ["fpn_p2"])
        before = np.array(finest(images)["fpn_p2"])
        last = model.get_layer("stage4_block1_conv2")
        if design == "pyramidal_hierarchy":
            assert last not in finest.layers
            continue
        last.set_weights([2 * weight for weight in last.get_weights()])
        assert np.any(np.array(finest(images)["fpn_p2"]) != before) == sees


def test_image_pyramid_is_the_backbone_on_enlarged_images():
    model = randomise(narrow(design="image_pyramid", levels=("p3", "p5"), include_preprocessing=False))
    alone = kzoo.build("resnet18", input_shape=SIZE, include_top=False, include_preprocessing=False, **TRUNK)
    values = {weight.path: weight for weight in model.weights}
    alone.set_weights([values[weight.path] for weight in alone.weights])
    large = kzoo.build("resnet18", input_shape=(300, 280, 3), include_top=False, include_preprocessing=False, **TRUNK)
    large.set_weights(alone.get_weights())
    images = pixels(2, *SIZE) / 255
    for level, trunk, x in (
        ("p5", alone, images),
        ("p3", large, keras.layers.UpSampling2D(4, interpolation="bilinear")(images)),
    ):
        expected = trunk(x)
        for layer in (f"fpn_{level}_lateral", f"fpn_{level}_smooth"):
            expected = model.get_layer(layer)(expected)
        assert relative_error(kzoo.pyramid(model, [f"fpn_{level}"])(images)[f"fpn_{level}"], expected) < 1e-5
    assert len(read_graph(model).calls["stem_conv"]) == 2


@pytest.mark.usefixtures("without_values")
def test_costs_of_the_designs():
    costs = {design: count_macs(narrow(design=design)) for design in DESIGNS}
    backbone = count_macs(kzoo.build("resnet18", input_shape=SIZE, include_top=False, **TRUNK))
    assert costs["single_map"] < costs["finest_level"] < costs["feature_pyramid"] == costs["pyramidal_hierarchy"]
    assert costs["image_pyramid"] > 80 * backbone  # 64 + 16 + 4 + 1, but for what the small maps round up


@pytest.mark.usefixtures("without_values")
def test_backbones_with_other_taps():
    cifar = kzoo.build("fpn", backbone="cifar_resnet20", input_shape=(33, 30, 3), num_classes=3)
    assert sorted(maps_of(cifar)) == ["fpn_p0", "fpn_p1", "fpn_p2"]  # one map has a stride of 4 or more
    assert cifar.output.shape == (None, 33, 30, 3)
    gap = narrow(levels=("p2", "p5"))
    assert gap.get_layer("fpn_p2_up").factor == 8
    assert gap.output.shape == (None, *SIZE[:2], 3)
    with pytest.raises(UnknownNameError, match=r"cifar_resnet20 has no tap 'p5'; it has p0, p1, p2: choose levels"):
        kzoo.build("fpn", backbone="cifar_resnet20", levels=("p2", "p5"))


@pytest.mark.parametrize("design", slow_but(["feature_pyramid"], DESIGNS))
def test_any_size_gives_what_a_fixed_size_gives(design):
    free = randomise(narrow(design=design, input_shape=(None, None, 3)))
    fixed = narrow(design=design)
    fixed.set_weights(free.get_weights())
    assert relative_error(free(pixels(2, *SIZE)), fixed(pixels(2, *SIZE))) < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(backbone=None), "backbone=None is not accepted; a feature pyramid stands on one"),
        (dict(backbone="fpn"), "backbone='fpn' is itself a model on a backbone"),
        (dict(design="pyramid"), "design='pyramid' is not accepted; use one of 'feature_pyramid'"),
        (dict(extra="conv"), "extra='conv' is not accepted; use one of 'pool', 'stride'"),
        (dict(extra_levels=-1), "extra_levels=-1 must be an integer, 0 or more"),
        (dict(extra_levels=1, design="finest_level"), "extra_levels=1 are coarser maps"),
        (dict(channels=0), "channels=0 must be a positive integer"),
        (dict(head_width=1.5), "head_width=1.5 must be a positive integer"),
        (dict(input_shape=(31, 64, 3)), "fpn needs at least 32×32 pixels"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.build("fpn", **options)
