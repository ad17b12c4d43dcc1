"""Feature pyramids give torchvision's maps with the same weights, and those of loops in NumPy; so does their head."""

from pathlib import Path

import keras
import numpy as np
import pytest
from dense_loops import convolve, fit, normalise, upsample_bilinear, upsample_nearest
from goldens.seeded import seeded, seeded_map
from helpers import feature_map, pixels, randomise, relative_error

import kzoo
from kzoo.models.fpn import FPNConfig, head, pyramid_maps

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "fpn.npz")
CHANNELS = (5, 6, 7, 8)  # of p2 to p5
SIZES = {"even": ((32, 24), (16, 12), (8, 6), (4, 3)), "odd": ((35, 27), (18, 14), (9, 7), (5, 4))}
WIDTH, CLASSES = 6, 3


def neck(sizes, **options) -> keras.Model:
    """The pyramid on maps of these sizes, without a backbone."""
    named = zip(range(2, 6), sizes, CHANNELS, strict=False)
    inputs = {level: keras.Input((*size, channels)) for level, size, channels in named}
    config = FPNConfig(channels=WIDTH, **options)
    maps = pyramid_maps(None, inputs, config)
    return keras.Model(list(inputs.values()), {level: maps[level] for level in maps})


def seeded_maps(sizes) -> list[np.ndarray]:
    return [seeded_map(2, *size, channels) for size, channels in zip(sizes, CHANNELS, strict=True)]


def torchvision_name(layer: str) -> str:
    """What torchvision's `FeaturePyramidNetwork` calls a layer."""
    level, kind = layer.removeprefix("fpn_p").split("_")
    blocks = {"lateral": f"inner_blocks.{int(level) - 2}.0", "smooth": f"layer_blocks.{int(level) - 2}.0"}
    return blocks.get(kind, f"extra_blocks.p{level}")


def head_name(layer: str) -> str:
    """What the goldens' script calls a layer of the semantic head."""
    if layer == "head_conv":
        return "head.logits"
    _, level, kind = layer.split("_")
    return f"head.{level}.{int(kind[-1]) - 1}.{'conv' if kind.startswith('conv') else 'norm'}"


def with_seeded_weights(model: keras.Model, torch_name) -> keras.Model:
    kinds = dict(
        kernel="weight",
        bias="bias",
        gamma="weight",
        beta="bias",
        moving_mean="running_mean",
        moving_variance="running_var",
    )
    for variable in model.weights:
        layer, kind = variable.path.split("/")
        name, shape = f"{torch_name(layer)}.{kinds[kind]}", tuple(variable.shape)
        if kind == "kernel":
            variable.assign(seeded(name, (shape[3], shape[2], *shape[:2])).transpose(2, 3, 1, 0))
        else:
            variable.assign(seeded(name, shape))
    return model


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("pool", dict(extra="pool", extra_levels=1)),
        ("stride_c5", dict(extra="stride", extra_levels=2)),
    ],
)
def test_neck_equals_torchvision(size, name, extra):
    """Also where sides are odd: what a stride of two rounds up, torchvision's interpolation enlarges as repetition."""
    model = with_seeded_weights(neck(SIZES[size], **extra), torchvision_name)
    maps = model(seeded_maps(SIZES[size]))
    assert list(maps) == list(range(2, 6 + extra["extra_levels"]))
    for level, actual in maps.items():
        golden = f"{size}_{name}_p{level}" if level > 5 else f"{size}_p{level}"
        error = relative_error(actual, GOLDENS[golden])
        print(f"{golden}: {error:.2g}")
        assert error < 1e-5


def test_semantic_head_equals_torch():
    config = FPNConfig(channels=WIDTH, head_width=WIDTH)
    inputs = {
        f"fpn_p{level}": keras.Input((*size, WIDTH)) for level, size in zip(range(2, 6), SIZES["even"], strict=True)
    }
    image = keras.Input((128, 96, 3))
    logits = head({"image": image, "fpn": inputs}, CLASSES, None, config)
    model = with_seeded_weights(keras.Model([image, *inputs.values()], logits), head_name)
    maps = [GOLDENS[f"even_p{level}"] for level in range(2, 6)]
    error = relative_error(model([np.zeros((2, 128, 96, 3)), *maps])[:, 1::3, 1::3], GOLDENS["head_logits"])
    print(f"head: {error:.2g}")
    assert error < 1e-5


def top_down(model: keras.Model, maps: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """The pyramid by loops, from the backbone's maps by level: laterals, sums from the coarsest down, 3×3."""
    merged, coarser = {}, None
    for level in sorted(maps, reverse=True):
        x = convolve(maps[level], *model.get_layer(f"fpn_p{level}_lateral").get_weights())
        if coarser is not None:
            factor = 2 ** (coarser - level)
            x += fit(upsample_nearest(merged[coarser], factor), *x.shape[1:3], rounding=factor - 1)
        merged[level], coarser = x, level
    smooth = {level: model.get_layer(f"fpn_p{level}_smooth").get_weights() for level in merged}
    return {level: convolve(merged[level], *smooth[level], padding=1) for level in sorted(merged)}


@pytest.mark.parametrize(
    "sizes",
    [
        ((11, 13), (5, 6), (2, 3)),  # rounded down, where torchvision's interpolation would move every second row
        ((11, 9), (6, 5), (3, 3)),
    ],
)
def test_neck_by_loops(sizes):
    model = randomise(neck(sizes))
    inputs = [feature_map(2, *size, channels) for size, channels in zip(sizes, CHANNELS, strict=False)]
    expected = top_down(model, dict(zip(range(2, 5), inputs, strict=True)))
    for level, actual in model(inputs).items():
        assert relative_error(actual, expected[level]) < 1e-5


def semantic_head(model: keras.Model, maps: dict[int, np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Logits by loops: each level convolved and doubled down to the finest, at each step of the size it has there."""
    finest, total = min(maps), 0
    for level, x in maps.items():
        fitted = level  # the level at which the map last had another level's size
        for number in range(1, max(level - finest, 1) + 1):
            name, target = f"head_p{level}", max(level - number, finest)
            x = convolve(x, model.get_layer(f"{name}_conv{number}").get_weights()[0], 0, padding=1)
            x = np.maximum(normalise(x, model.get_layer(f"{name}_bn{number}")), 0)
            if level > finest:
                x = upsample_bilinear(x, 2)
                if target in maps:
                    x, fitted = fit(x, *maps[target].shape[1:3], rounding=2 ** (fitted - target) - 1), target
        total = total + x
    logits = convolve(total, *model.get_layer("head_conv").get_weights())
    return fit(upsample_bilinear(logits, 2**finest), *size, rounding=2**finest - 1)


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        ((39, 37), None),  # levels are rounded up: 10×10, 5×5, 3×3, 2×2
        ((39, 37), ("p3", "p4", "p5")),
        ((33, 37), ("p2", "p4", "p5")),  # p4 is 3×3, four times it 12×12, and p2 9×10
    ],
)
def test_whole_network_by_loops(size, levels):
    backbone = dict(backbone="resnet18", backbone_options=dict(widths=(8, 12, 16, 20), depths=(1, 1, 1, 1)))
    options = dict(channels=7, head_width=5, num_classes=CLASSES, levels=levels, **backbone)
    model = randomise(kzoo.build("fpn", input_shape=(*size, 3), classifier_activation=None, **options))
    images = pixels(2, *size, 3)
    taps = kzoo.pyramid(model, levels or ("p2", "p3", "p4", "p5"))(images)
    maps = top_down(model, {int(name[1:]): np.array(tap) for name, tap in taps.items()})
    for name, actual in kzoo.pyramid(model, [f"fpn_p{level}" for level in maps])(images).items():
        assert relative_error(actual, maps[int(name[-1])]) < 1e-5
    expected = semantic_head(model, maps, size)
    mean = expected.mean(axis=(0, 1, 2))  # the largest part of random logits
    error = relative_error(model(images) - mean, expected - mean)
    print(f"{error:.2g}")
    assert error < 1e-5
