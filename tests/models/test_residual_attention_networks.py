"""Residual attention networks: sizes and costs by hand, equality with a network in NumPy, taps, small images, options.

The authors published Caffe definitions and no weights. The reference follows them layer by layer, but for the
paper's gates and upsampling between pixel centres.
"""

import re
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import pixels, randomise, relative_error, slow_but

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.models.residual_attention import ResidualAttentionConfig
from kzoo.registry import lookup
from kzoo.surgery import plan_folding
from kzoo.taps import tap_names

NARROW = dict(widths=(4, 4, 6, 8))


def unit_cost(before: int, width: int, strides: int, side: int) -> tuple[int, int]:
    """Parameters and multiply-adds of a residual unit whose output has side × side pixels."""
    after = 4 * width
    projection = before * after if strides > 1 or before != after else 0
    kernels = before * width + 9 * width**2 + width * after + projection
    macs = side**2 * (strides**2 * before * width + 9 * width**2 + width * after + projection)
    return kernels + 2 * (before + 2 * width), macs


def cost(config: ResidualAttentionConfig, classes: int = 1000) -> tuple[int, int]:
    """Parameters and multiply-adds at 224×224, counted by hand from Table 2 and Figure 2."""
    p, t, r = config.outer_units, config.trunk_units, config.mask_units
    total = np.array([49 * 3 * config.widths[0] + 2 * config.widths[0], 112**2 * 49 * 3 * config.widths[0]])
    before = config.widths[0]
    for stage, (count, width, depth) in enumerate(
        zip(config.modules, config.widths[:3], config.mask_depths, strict=True)
    ):
        side, channels = 56 // 2**stage, 4 * width
        total += unit_cost(before, width, 1 if stage == 0 else 2, side)
        module = (2 * p + t) * np.array(unit_cost(channels, width, 1, side))
        for level in range(1, depth + 1):  # r units down, r units up, and one in the skip connection but for the last
            module += (2 * r + (level < depth)) * np.array(unit_cost(channels, width, 1, -(-side // 2**level)))
        module += np.array([2 * channels**2 + 4 * channels, side**2 * 2 * channels**2])  # the two 1×1 convolutions
        total += count * module
        before = channels
    for index in range(config.last_units):
        total += unit_cost(before, config.widths[3], 2 if index == 0 else 1, 7)
        before = 4 * config.widths[3]
    total += np.array([2 * before + (before + 1) * classes, before * classes])
    return int(total[0]), int(total[1])


# millions of parameters and GMACs in Table 2
PAPER = {"residual_attention56": (31.9, 6.2), "residual_attention92": (51.3, 10.4)}


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", slow_but(["residual_attention56"], PAPER))
def test_size_and_cost_are_the_papers(name):
    info = kzoo.describe(name)
    assert (info.trainable_parameters, info.macs) == cost(lookup(name).config)
    millions, gmacs = PAPER[name]
    assert abs(info.trainable_parameters / 1e6 / millions - 1) < 0.025
    assert abs(info.macs / 1e9 / gmacs - 1) < 0.015
    assert info.taps == {
        "p1": (112, 112, 64),
        "p2": (56, 56, 256),
        "p3": (28, 28, 512),
        "p4": (14, 14, 1024),
        "p5": (7, 7, 2048),
    }
    if name == "residual_attention56":  # 31.81 without the moving statistics
        assert round(kzoo.build(name).count_params() / 1e6, 1) == millions


@pytest.mark.usefixtures("without_values")
def test_size_and_cost_of_other_hyper_parameters():
    options = dict(modules=(1, 0, 2), mask_depths=(2, 1, 3), outer_units=2, trunk_units=1, mask_units=2, last_units=1)
    info = kzoo.describe("residual_attention56", **options, **NARROW)
    assert (info.trainable_parameters, info.macs) == cost(
        replace(lookup("residual_attention56").config, **options, **NARROW)
    )


@pytest.mark.parametrize("name", PAPER)
def test_the_trunk_has_as_many_layers_as_the_name_says(name):
    config = lookup(name).config
    modules = sum(config.modules)
    units = len(config.modules) + (2 * config.outer_units + config.trunk_units) * modules + config.last_units
    assert 1 + 3 * units + 1 == int(name[-2:])


# the network in NumPy, float64; weights by their paths


class Reference:
    def __init__(self, model, config: ResidualAttentionConfig):
        self.weights = {v.path: np.array(v, "float64") for v in model.variables}
        self.config = config
        self.masks = []

    def active(self, x, path):
        gamma, beta, mean, variance = (
            self.weights[f"{path}/{name}"] for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return np.maximum((x - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)

    def conv(self, x, path, strides=1):
        """Symmetric padding of half the kernel; one offset of the kernel after the other."""
        kernel = self.weights[f"{path}/kernel"]
        size = len(kernel)
        x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
        rows, columns = ((side - size) // strides + 1 for side in x.shape[1:3])
        return sum(
            x[:, i : i + strides * rows : strides, j : j + strides * columns : strides][:, :rows, :columns]
            @ kernel[i, j]
            for i in range(size)
            for j in range(size)
        )

    def unit(self, x, path, strides=1, separator="_"):
        y = self.active(x, f"{path}{separator}bn1")
        projection = f"{path}_shortcut_conv"
        shortcut = self.conv(y, projection, strides) if f"{projection}/kernel" in self.weights else x
        y = self.active(self.conv(y, f"{path}{separator}conv1"), f"{path}{separator}bn2")
        y = self.active(self.conv(y, f"{path}{separator}conv2", strides), f"{path}{separator}bn3")
        return shortcut + self.conv(y, f"{path}{separator}conv3")

    def units(self, x, count, path, separator="_"):
        for index in range(1, count + 1):
            x = self.unit(x, f"{path}{index}", separator=separator)
        return x

    def mask(self, x, depth, path):
        """Down to the bottom and up again, written out level by level as in the authors' definition."""
        r = self.config.mask_units
        sizes, skips = [], {}
        for level in range(1, depth + 1):
            sizes.append(x.shape[1:3])
            x = self.units(max_pool(x), r, f"{path}/down{level}_unit", "/")
            if level < depth:
                skips[level] = self.unit(x, f"{path}/skip{level}", separator="/")
        for level in range(depth, 0, -1):
            x = upsample(self.units(x, r, f"{path}/up{level}_unit", "/"), *sizes[level - 1])
            x = x + skips.get(level - 1, 0)
        for index in (1, 2):
            x = self.conv(self.active(x, f"{path}/head/bn{index}"), f"{path}/head/conv{index}")
        if self.config.gate == "channel":
            return x / np.sqrt((x**2).sum(-1, keepdims=True))
        if self.config.gate == "spatial":
            x = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
        return 1 / (1 + np.exp(-x))

    def module(self, x, depth, path):
        config = self.config
        x = self.units(x, config.outer_units, f"{path}_before")
        trunk = self.units(x, config.trunk_units, f"{path}_trunk")
        mask = self.mask(x, depth, f"{path}_mask")
        self.masks.append(mask)
        x = (1 + mask) * trunk if config.residual_learning else mask * trunk
        return self.units(x, config.outer_units, f"{path}_after")

    def __call__(self, x):
        """The taps and the logits of normalised images."""
        x = self.active(self.conv(x, "stem_conv", 2), "stem_bn")
        outputs = [x]
        x = max_pool(x)
        for stage, (count, depth) in enumerate(
            zip(self.config.modules, self.config.mask_depths, strict=True), start=1
        ):
            x = self.unit(x, f"stage{stage}_unit1", 1 if stage == 1 else 2)
            for index in range(1, count + 1):
                x = self.module(x, depth, f"stage{stage}_module{index}")
            outputs.append(x)
        for index in range(1, self.config.last_units + 1):
            x = self.unit(x, f"stage4_unit{index}", 2 if index == 1 else 1)
        x = self.active(x, "final_bn")
        logits = x.mean((1, 2)) @ self.weights["head_dense/kernel"] + self.weights["head_dense/bias"]
        return [*outputs, x, logits]


def max_pool(x):
    """3×3 with stride 2. Windows begin at the first pixel of an even side, and one before it of an odd side."""
    height, width = x.shape[1:3]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    top, left = height % 2, width % 2
    y = np.full((len(x), 2 * rows + 1, 2 * columns + 1, x.shape[3]), -np.inf)
    y[:, top : top + height, left : left + width] = x
    windows = [y[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] for i in range(3) for j in range(3)]
    return np.max(windows, axis=0)


def upsample(x, height, width):
    """Linear interpolation between pixel centres, row by row and column by column."""
    for axis, size in ((1, height), (2, width)):
        old = x.shape[axis]
        places = (np.arange(size) + 0.5) * old / size - 0.5
        x = np.apply_along_axis(lambda line, at, old: np.interp(at, np.arange(old), line), axis, x, places, old)
    return x


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("residual_attention56", {}),
        pytest.param("residual_attention92", dict(modules=(0, 2, 1), residual_learning=False), marks=pytest.mark.slow),
        pytest.param(
            "residual_attention56", dict(gate="spatial", mask_units=2, trunk_units=1), marks=pytest.mark.slow
        ),
        ("residual_attention56", dict(gate="channel", outer_units=2, mask_depths=(2, 1, 1), last_units=1)),
    ],
    ids=["paper", "naive", "spatial", "channel"],
)
def test_is_the_network_in_numpy(name, options):
    model = randomise(
        kzoo.build(
            name,
            input_shape=(33, 41, 3),
            num_classes=5,
            classifier_activation=None,
            include_preprocessing=False,
            **NARROW,
            **options,
        )
    )
    images = pixels(2, 33, 41, 3) / 128 - 1
    reference = Reference(model, replace(lookup(name).config, **NARROW, **options))
    outputs = [*(model.get_layer(tap).output for tap in tap_names(model)), model.output]
    taps = [tuple(y.shape[1:3]) for y in outputs[:-1]]
    assert taps == [(17, 21), (9, 11), (5, 6), (3, 3), (2, 2)]  # half of an odd side, rounded up
    for actual, expected in zip(keras.Model(model.input, outputs)(images), reference(images), strict=True):
        assert relative_error(actual, expected) < 1e-5
    assert len(reference.masks) == sum(reference.config.modules)
    assert min(mask.std() for mask in reference.masks) > 0.02  # so that the comparison says something


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize(
    ("mask_depths", "smallest"), [((3, 2, 1), 32), ((4, 1, 1), 33), ((3, 4, 1), 65), ((1, 1, 3), 65)]
)
def test_the_smallest_images(mask_depths, smallest):
    options = NARROW | dict(mask_depths=mask_depths)
    kzoo.build("residual_attention56", input_shape=(smallest, 128, 3), **options)
    with pytest.raises(InvalidValueError, match=f"needs at least {smallest}×{smallest} pixels"):
        kzoo.build("residual_attention56", input_shape=(128, smallest - 1, 3), **options)


@pytest.mark.usefixtures("without_values")
def test_a_mask_that_is_not_there_needs_no_size():
    options = NARROW | dict(modules=(0, 1, 1), mask_depths=(9, 2, 1))
    assert kzoo.build("residual_attention56", input_shape=(32, 32, 3), **options).output.shape == (None, 1000)


def test_images_of_unknown_size_are_refused():
    with pytest.raises(
        InvalidValueError, match=r"known height and width, got shape \(None, None, 64, 3\).*input_shape"
    ):
        kzoo.build("residual_attention56", input_shape=(None, 64, 3), **NARROW)


NAME = re.compile(
    r"image|preprocessing|p\d|stem_(conv(_pad)?|bn|relu|pool)|final_(bn|relu)|head_(pool|dense|activation)"
    r"|stage\d_(unit|module\d_(before|trunk|after))\d_((conv|bn|relu)\d|conv2_pad|shortcut_conv|add|attention)"
    r"|stage\d_module\d_mask"
)


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", PAPER)
def test_every_layer_has_a_name_of_the_contract(name):
    model = kzoo.build(name, input_shape=(64, 64, 3), **NARROW)
    assert [layer.name for layer in model.layers if not NAME.fullmatch(layer.name)] == []
    masks = [layer.name for layer in model.layers if layer.name.endswith("_mask")]
    modules = enumerate(lookup(name).config.modules, start=1)
    assert masks == [f"stage{stage}_module{i}_mask" for stage, count in modules for i in range(1, count + 1)]


@pytest.mark.usefixtures("without_values")
def test_what_folds():
    """Norms behind a convolution, and all inside the masks; those that read a sum or the stem's pool stay."""
    plan = plan_folding(kzoo.build("residual_attention56", input_shape=(64, 64, 3), **NARROW))
    assert plan.inside == [f"stage{stage}_module1_mask" for stage in (1, 2, 3)]
    units = 3 + 3 * 4 + 3
    assert len(plan.kept) == units + 1
    assert len(plan.folds) == 2 * units + 1


@pytest.mark.usefixtures("without_values")
def test_attention_weighs_every_branch_outside_of_the_masks():
    def halve(x, name):
        return keras.layers.Rescaling(0.5, name=name)(x)

    model = kzoo.build("residual_attention56", input_shape=(64, 64, 3), attention=halve, **NARROW)
    attention = [layer for layer in model.layers if layer.name.endswith("_attention")]
    assert len(attention) == 3 + 3 * 4 + 3
    for layer in attention:
        unit = layer.name.removesuffix("_attention")
        assert layer.input is model.get_layer(f"{unit}_conv3").output
        assert any(tensor is layer.output for tensor in model.get_layer(f"{unit}_add").input)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(modules=(1, 2)), r"modules=\(1, 2\) must be a tuple of 3 integers, 0 or more"),
        (dict(modules=(1, -1, 1)), "modules=.* must be a tuple of 3 integers, 0 or more"),
        (dict(widths=(8, 8, 8)), r"widths=\(8, 8, 8\) must be a tuple of 4 integers, 1 or more"),
        (dict(widths=64), "widths=64 must be a tuple of 4 integers, 1 or more"),
        (dict(mask_depths=(3, 2, 0)), r"mask_depths=\(3, 2, 0\) must be a tuple of 3 integers, 1 or more"),
        (dict(outer_units=-1), "outer_units=-1 must be an integer, 0 or more"),
        (dict(trunk_units=1.5), r"trunk_units=1\.5 must be an integer, 0 or more"),
        (dict(mask_units=0), "mask_units=0 must be an integer, 1 or more"),
        (dict(last_units=True), "last_units=True must be an integer, 1 or more"),
        (dict(gate="softmax"), "gate='softmax' is not accepted; use one of 'mixed', 'channel', 'spatial'"),
        (dict(residual_learning="no"), "residual_learning='no' must be True or False"),
        (dict(attention="sse"), "attention='sse' is not accepted"),
        (dict(attention="non_local"), "attention='non_local' has the slot 'stage'; .* the slot 'branch' alone"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.build("residual_attention56", **options)
