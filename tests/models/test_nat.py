"""Neighborhood attention transformers: sizes, costs, equality with a network written in torch, small maps, options.

`tests/goldens/make_nat_goldens.py` holds that network: no public package runs NAT without compiled kernels.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from goldens.seeded import seeded_pictures
from helpers import pixels, randomise, relative_error
from models.transformers import inner, layer_norm, load_seeded, rates

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.registry import lookup
from kzoo.zoo import count_parameters

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "nat.npz")
NARROW = lookup("nat_mini").narrow
# millions of parameters and GMACs that the paper's table of ImageNet results gives, and the counts of its architecture
PAPER = {
    "nat_mini": (20, 2.7, 19_984_174),
    "nat_tiny": (28, 4.3, 27_901_582),
    "nat_small": (51, 7.8, 50_743_297),
    "nat_base": (90, 13.7, 89_769_652),
}


def parameters_of(depths, heads, width, mlp_ratio, layer_scale, kernel_size=7, classes=1000) -> int:
    """Counted by hand: convolutions, norms, attention with its tables, MLPs, classifier."""
    total = (27 + 1) * (width // 2) + (9 * width // 2 + 1) * width + 2 * width
    for stage, (depth, number) in enumerate(zip(depths, heads, strict=True)):
        channels = width * 2**stage
        attention = 4 * channels**2 + 4 * channels + number * (2 * kernel_size - 1) ** 2
        mlp = 2 * mlp_ratio * channels**2 + (mlp_ratio + 1) * channels
        total += depth * (attention + mlp + 4 * channels + 2 * channels * layer_scale)
        if stage < len(depths) - 1:
            total += 9 * channels * 2 * channels + 2 * 2 * channels
    last = width * 2 ** (len(depths) - 1)
    return total + 2 * last + (last + 1) * classes


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize(
    "name", [*list(PAPER)[:2], *(pytest.param(n, marks=pytest.mark.slow) for n in list(PAPER)[2:])]
)
def test_size_and_cost_are_the_papers(name):
    millions, gmacs, parameters = PAPER[name]
    info = kzoo.describe(name)
    config = lookup(name).config
    assert info.trainable_parameters == parameters
    assert parameters == parameters_of(
        config.depths, config.num_heads, config.width, config.mlp_ratio, config.layer_scale is not None
    )
    assert abs(parameters / 1e6 / millions - 1) < 0.02
    assert round(info.macs / 1e9, 1) == gmacs


def test_variants_are_the_papers():
    configs = {name: lookup(name).config for name in PAPER}
    assert [config.layer_scale for config in configs.values()] == [None, None, 1e-5, 1e-5]
    assert [config.mlp_ratio for config in configs.values()] == [3, 3, 2, 2]
    assert [config.drop_path_rate for config in configs.values()] == [0.2, 0.2, 0.3, 0.5]
    assert {config.kernel_size for config in configs.values()} == {7}


@pytest.mark.parametrize(
    ("golden", "size", "options"),
    [
        pytest.param("nat_mini", (224, 224), {}, marks=pytest.mark.slow),
        (
            "scaled",  # odd maps and layer scale
            (201, 250),
            dict(depths=(2, 1, 1, 1), num_heads=(2, 2, 4, 4), width=16, mlp_ratio=2, layer_scale=1e-5),
        ),
    ],
)
def test_logits_equal_torch(golden, size, options, tmp_path):
    classes = GOLDENS[golden].shape[-1]
    model = kzoo.build("nat_mini", input_shape=(*size, 3), num_classes=classes, classifier_activation=None, **options)
    assert count_parameters(model) == GOLDENS[f"{golden}_parameters"]
    load_seeded(model, tmp_path / "model.safetensors")
    error = relative_error(model(seeded_pictures(*size)), GOLDENS[golden])
    print(f"{golden}: {error:.2g}")
    assert error < 1e-5


def test_small_maps_are_refused_or_clamp_the_kernel():
    options = NARROW | dict(kernel_size=7, clamp_kernel=False)
    kzoo.build("nat_mini", input_shape=(193, 193, 3), **options)
    message = (
        "images of 224×192 pixels give a map of 7×6, smaller than kernel_size=7; use images of at least 193×193, a "
        "smaller kernel_size, or clamp_kernel=True"
    )
    with pytest.raises(InvalidValueError, match=message):
        kzoo.build("nat_mini", input_shape=(224, 192, 3), **options)
    model = kzoo.build("nat_mini", input_shape=(96, 128, 3), **options | dict(clamp_kernel=True))
    kernels = [layer.kernel_size for layer in model.layers if layer.name.endswith("_attention")]
    assert kernels == [7, 7, 7, 5, 3]  # maps of 24, 12, 6 and 3 rows
    assert np.isfinite(model(pixels(1, 96, 128, 3))).all()


def test_layer_scale_ends_every_branch():
    model = kzoo.build("nat_mini", input_shape=(96, 96, 3), **NARROW | dict(layer_scale=0.25, drop_path_rate=0.1))
    scales = [layer for layer in model.layers if layer.name.endswith("_scale")]
    assert len(scales) == 2 * sum(NARROW["depths"])
    assert all(np.array_equal(layer.scale, np.full(layer.scale.shape, 0.25)) for layer in scales)
    name = "stage3_block1"
    for branch, last in (("attention", "attention"), ("mlp", "mlp_dense2")):
        scale = model.get_layer(f"{name}_{branch}_scale")
        drop = model.get_layer(f"{name}_{branch}_drop_path")
        assert scale.input is model.get_layer(f"{name}_{last}").output
        assert drop.input is scale.output
        assert model.get_layer(f"{name}_{branch}_add").input[1] is drop.output


@pytest.mark.usefixtures("without_values")
def test_stochastic_depth_rises_linearly():
    model = kzoo.build("nat_mini", input_shape=(96, 96, 3), **NARROW | dict(drop_path_rate=0.4))
    assert rates(model) == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4])  # two branches; none in the first


def test_taps_of_images_of_odd_sizes():
    options = dict(input_shape=(101, 135, 3), normalise_taps=True, **NARROW)
    model = randomise(kzoo.build("nat_mini", **options))
    images = pixels(2, 101, 135, 3)
    maps = kzoo.pyramid(model, ["p2", "p3", "p4", "p5"])(images)
    assert {tap: tuple(x.shape) for tap, x in maps.items()} == {
        "p2": (2, 26, 34, 16),
        "p3": (2, 13, 17, 32),
        "p4": (2, 7, 9, 64),
        "p5": (2, 4, 5, 128),
    }
    for tap, trunk, norm in (("p2", "stage1_block2", "stage1_tap_norm"), ("p5", "stage4_block1", "final_norm")):
        expected = layer_norm(inner(model, f"{trunk}_mlp_add")(images), model.get_layer(norm))
        assert relative_error(maps[tap], expected) < 1e-5


NAME = re.compile(
    r"image|preprocessing|p[2-5]|stem_(conv[12](_pad)?|norm)|final_norm|head_(pool|dense|activation)"
    r"|stage[1-4]_block\d+_(norm[12]|attention(_scale|_drop_path|_add)?|mlp_(dense[12]|gelu|scale|drop_path|add))"
    r"|stage[2-4]_downsample_(conv(_pad)?|norm)|stage[1-3]_(tap_norm|trunk)"
)


@pytest.mark.usefixtures("without_values")
def test_every_layer_has_a_name_of_the_contract():
    options = NARROW | dict(drop_path_rate=0.1, normalise_taps=True, layer_scale=0.1)
    model = kzoo.build("nat_mini", input_shape=(101, 67, 3), **options)
    assert [layer.name for layer in model.layers if not NAME.fullmatch(layer.name)] == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(kernel_size=6), "kernel_size=6 must be a positive odd number"),
        (dict(layer_scale=-1), "layer_scale=-1 must be a number above 0"),
        (dict(width=65), r"width=65 must be a positive integer that num_heads\[0\]=2 divides"),
        (dict(width=33, num_heads=(3, 6, 12, 24)), "width=33 must be even"),
        (dict(depths=(3, 4)), "must have one number per stage"),
        (dict(attention="non_local"), "attention='non_local' fills a 'stage' slot"),
        (dict(input_shape=(None, None, 3)), "a NAT needs images of known height and width"),
        (dict(input_shape=(160, 160, 3)), "a map of 5×5, smaller than kernel_size=7"),
    ],
)
def test_bad_overrides(overrides, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.build("nat_mini", **overrides)


@pytest.mark.slow
def test_full_size_runs_in_one_partition(tmp_path):
    model = randomise(kzoo.build("nat_mini", classifier_activation=None))
    report = kzoo.export(model, tmp_path / "model.tflite", calibration=pixels(2, 224, 224, 3))
    print(f"nat_mini: {sum(report.ops.values())} ops, {report.max_rel_error:.2g}")
    assert report.xnnpack_partitions == 1
    assert report.max_rel_error < 1e-4
