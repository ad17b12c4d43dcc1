"""Files of a classifier load into the encoder of a model on it, by the same names; frozen encoders stay."""

import dataclasses
import functools
import itertools
import pickle

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, pixels, randomise, slow_but, weights_of
from weights.test_keras_applications import VGG, small_vgg
from weights.torch_files import save, save_keras

import kzoo
from kzoo.errors import InvalidValueError, WeightsError
from kzoo.registry import Entry, configure, lookup
from kzoo.weights import load_backbone
from kzoo.weights.torch_names import torch_names

SHAPE = (25, 30, 3)
TINY = dict(widths=(8, 12), depths=(1, 1))
DECODERS = {
    "unet": dict(decoder_widths=(8, 6, 4)),
    "fpn": dict(channels=8, head_width=6),
}


def tiny(**options) -> keras.Model:
    return randomise(kzoo.build("resnet18", input_shape=SHAPE, num_classes=7, **TINY | options), seed=3)


def tiny_entry() -> Entry:
    entry = lookup("resnet18")
    return dataclasses.replace(entry, config=configure(entry, TINY))


def composite(name: str, backbone: str = "resnet18", options: dict = TINY, **more) -> keras.Model:
    options = dict(input_shape=SHAPE, num_classes=3, backbone=backbone, backbone_options=options) | more
    return kzoo.build(name, **DECODERS[name] | options)


def write(model: keras.Model, path):
    """The weights of `model` with torch names and layouts, or as Keras writes them, as the suffix says."""
    if path.suffix != ".safetensors":
        save_keras(model, path)
        return path
    state = {}
    for variable in model.weights:
        array = keras.ops.convert_to_numpy(variable)
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, tuple(range(array.ndim)))
        state[torch_names(variable.path, model)[0]] = np.ascontiguousarray(array.transpose(axes))
    return save(state, path)


def by_path(model: keras.Model) -> dict[str, np.ndarray]:
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}


def assert_encoder_is(model: keras.Model, alone: keras.Model) -> None:
    """The encoder of `model` has each weight of the classifier `alone`, bit for bit, and no other."""
    mine, theirs = by_path(model), by_path(alone)
    encoder = {path for path in mine if not path.startswith(("unet_", "fpn_", "head_"))}
    assert encoder == {path for path in theirs if not path.startswith("head_")} != set()
    for path in encoder:
        np.testing.assert_array_equal(mine[path], theirs[path], err_msg=path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("unet", "a.safetensors"),
        ("unet", "a.weights.h5"),
        ("unet", "a.h5"),
        ("unet", "a.keras"),
        ("fpn", "a.safetensors"),
        ("fpn", "a.weights.h5"),
    ],
)
def test_the_same_file_for_the_backbone_alone_and_inside(name, file, tmp_path):
    donor = tiny()
    path = write(donor, tmp_path / file)
    alone = kzoo.build("resnet18", input_shape=SHAPE, weights=path, num_classes=7, **TINY)
    assert_weights_are(alone, weights_of(donor))
    model = composite(name, backbone_weights=path)
    assert_encoder_is(model, alone)

    levels, images = ["p1", "p2", "p3"], pixels(2, *SHAPE)
    inside = kzoo.pyramid(model, levels)(images)
    for level, expected in kzoo.pyramid(alone, levels)(images).items():
        np.testing.assert_array_equal(inside[level], expected)


@pytest.mark.parametrize("name", DECODERS)
def test_into_a_model_that_exists(name, tmp_path):
    donor, model = tiny(), randomise(composite(name), seed=4)
    before = by_path(model)
    report = kzoo.load_weights(kzoo.backbone(model, "resnet18"), write(donor, tmp_path / "a.safetensors"))
    assert_encoder_is(model, donor)
    assert len(report.loaded) == len(donor.weights) - 2  # without the classifier's kernel and bias
    assert report.missing == report.unexpected == report.initialised == []
    for path, array in by_path(model).items():
        if path.startswith(("unet_", "fpn_", "head_")):
            np.testing.assert_array_equal(array, before[path], err_msg=path)


@pytest.mark.parametrize("name", ["a.safetensors", "a.keras", "a.weights.h5"])
def test_only_the_stages_that_are_used(name, tmp_path):
    """Without its last stages the encoder takes the file of the whole classifier."""
    donor = tiny()
    path = write(donor, tmp_path / name)
    model = composite("fpn", levels=("p1", "p2"), backbone_weights=path)
    mine, theirs = by_path(model), by_path(donor)
    encoder = [path for path in mine if not path.startswith(("fpn_", "head_"))]
    assert {path.partition("_")[0] for path in encoder} == {"stem", "stage1"}
    for path in encoder:
        np.testing.assert_array_equal(mine[path], theirs[path], err_msg=path)


def test_norms_of_taps_that_no_classifier_has(tmp_path):
    narrow = lookup("swin_tiny").narrow
    donor = randomise(kzoo.build("swin_tiny", input_shape=(64, 64, 3), num_classes=7, **narrow))
    path = write(donor, tmp_path / "a.weights.h5")
    model = composite("fpn", "swin_tiny", narrow, input_shape=(64, 64, 3), backbone_weights=path)
    mine, theirs = by_path(model), by_path(donor)
    new = {path for path in mine if not path.startswith(("fpn_", "head_"))} - theirs.keys()
    assert new
    assert all("_tap_norm/" in path for path in new)
    for path in mine.keys() & theirs.keys():
        np.testing.assert_array_equal(mine[path], theirs[path], err_msg=path)
    for path in new:
        np.testing.assert_array_equal(mine[path], np.full_like(mine[path], path.endswith("gamma")))


@pytest.mark.parametrize("file", ["a.h5", "a.weights.h5"])
def test_file_of_keras_applications(file, tmp_path):
    """Its first kernel reads blue, green, red."""
    other = small_vgg()
    save_keras(other, tmp_path / file)
    alone = kzoo.build("vgg16", weights=tmp_path / file, **VGG)
    options = {key: VGG[key] for key in ("depths", "widths")}
    more = dict(decoder_widths=(6, 5), input_shape=VGG["input_shape"], backbone_weights=tmp_path / file)
    model = composite("unet", "vgg16", options, **more)
    assert_encoder_is(model, alone)
    blue_first = keras.ops.convert_to_numpy(other.get_layer("block1_conv1").kernel)
    np.testing.assert_array_equal(model.get_layer("stage1_conv1").kernel, blue_first[:, :, ::-1])


@pytest.mark.slow
def test_real_file_of_keras_applications(tmp_path):
    """Every map of ResNet-50's encoder from its own pixels, which are blue first and without a mean colour."""
    other = randomise(keras.applications.ResNet50(weights=None, include_top=False, input_shape=(64, 96, 3)))
    other.save(tmp_path / "a.h5")
    model = kzoo.build("unet", backbone="resnet50_v1", input_shape=(64, 96, 3), backbone_weights=tmp_path / "a.h5")
    images = pixels(2, 64, 96, 3)
    expected = other(keras.applications.resnet.preprocess_input(images.copy()))
    actual = kzoo.pyramid(model, ["p5"])(images)["p5"]
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def pickled(path):
    path.write_bytes(pickle.dumps({"conv1.weight": [0.0]}))
    return path


def truncated(path):
    write(tiny(), path)
    path.write_bytes(path.read_bytes()[:-100])
    return path


WRONG = {
    "deeper.safetensors": (lambda path: write(tiny(depths=(1, 2)), path), "unexpected: .*layer2"),
    "deeper.weights.h5": (lambda path: write(tiny(depths=(1, 2)), path), "unexpected: .*stage2_block2"),
    "shallower.safetensors": (lambda path: write(tiny(depths=(1,), widths=(8,)), path), "missing: .*stage2_block1"),
    "wider.safetensors": (lambda path: write(tiny(widths=(8, 16)), path), "do not fit: .*stage2"),
    "segmentation.weights.h5": (lambda path: write(randomise(composite("unet")), path), "unexpected: .*unet_"),
    "cut.safetensors": (truncated, "no readable safetensors file"),
    "pickle.pth": (pickled, "is a pickle"),
    "absent.safetensors": (lambda path: path, "no weights file at"),
}


@functools.cache
def untouched() -> tuple[keras.Model, list[np.ndarray]]:
    """One model for all refusals, as none may change it, and its weights."""
    model = randomise(composite("unet"))
    return model, weights_of(model)


@pytest.mark.parametrize("file", WRONG)
def test_wrong_files_change_nothing(file, tmp_path):
    make, message = WRONG[file]
    path = make(tmp_path / file)
    model, before = untouched()
    for load in (
        lambda: kzoo.load_weights(kzoo.backbone(model, "resnet18"), path),
        lambda: load_backbone(model, tiny_entry(), path),
    ):
        with pytest.raises(WeightsError, match=message) as refusal:
            load()
        assert str(path) in str(refusal.value)
        try:
            assert_weights_are(model, before)
        finally:
            model.set_weights(before)


def test_wrong_files_end_the_build(tmp_path):
    path = write(tiny(depths=(1, 2)), tmp_path / "deeper.safetensors")
    with pytest.raises(WeightsError, match=r"deeper.safetensors does not fit resnet18 .*unexpected: .*layer2"):
        composite("fpn", backbone_weights=path)
    with pytest.raises(WeightsError, match=r"absent.safetensors"):
        composite("fpn", backbone_weights=tmp_path / "absent.safetensors")


def test_deeper_file_for_an_encoder_without_its_last_stages(tmp_path):
    """What of the file belongs to stages that are used must fit."""
    path = write(tiny(depths=(2, 1)), tmp_path / "deeper.safetensors")
    with pytest.raises(WeightsError, match=r"layer1\.1"):
        composite("fpn", levels=("p1", "p2"), backbone_weights=path)


def test_options_that_exclude_each_other(tmp_path):
    path = write(tiny(), tmp_path / "a.safetensors")
    with pytest.raises(InvalidValueError, match=r"give one of them"):
        composite("unet", weights=path, backbone_weights=path)
    with pytest.raises(InvalidValueError, match=r"use weights="):
        kzoo.build("resnet18", backbone_weights=path, **TINY)
    with pytest.raises(InvalidValueError, match=r"give backbone= too"):
        kzoo.build("unet", backbone_weights=path)
    with pytest.raises(WeightsError, match=r"does not fit unet"):
        composite("unet", weights=path)


def train_one_step(model: keras.Model) -> dict[str, bool]:
    """Whether each weight changed, by path."""
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(), run_eagerly=True)
    before = by_path(model)
    masks = np.random.default_rng(0).integers(0, 3, (2, *SHAPE[:2]))
    model.train_on_batch(pixels(2, *SHAPE), masks)
    return {path: not np.array_equal(array, before[path]) for path, array in by_path(model).items()}


@pytest.mark.parametrize("name", DECODERS)
def test_a_frozen_encoder_keeps_its_statistics(name):
    model = kzoo.freeze_backbone(randomise(composite(name)))
    changed = train_one_step(model)
    encoder = {path for path in changed if not path.startswith(("unet_", "fpn_", "head_"))}
    assert {path.rpartition("/")[2] for path in encoder} == {
        "kernel",
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    }
    assert [path for path in encoder if changed[path]] == []
    assert [path for path in changed.keys() - encoder if not changed[path]] == []

    assert kzoo.freeze_backbone(model, frozen=False) is model
    changed = train_one_step(model)
    assert [path for path in changed if not changed[path]] == []


def test_freezing_needs_a_decoder_or_a_head():
    with pytest.raises(InvalidValueError, match=r"resnet18 has no head and no decoder"):
        kzoo.freeze_backbone(tiny(include_top=False))


def test_norms_of_taps_learn_with_the_decoder():
    model = kzoo.freeze_backbone(kzoo.build("unet", backbone="swin_tiny", input_shape=(64, 64, 3)))
    learning = [layer.name for layer in model.layers if layer.trainable and "stage" in layer.name and layer.weights]
    assert learning == ["stage1_tap_norm", "stage2_tap_norm", "stage3_tap_norm"]


TRUNKS = {
    "swin_tiny": dict(depths=(1, 1), num_heads=(1, 2), width=8, drop_path_rate=0.5),
    "nat_mini": dict(depths=(1, 1), num_heads=(1, 2), width=8, kernel_size=3, drop_path_rate=0.5),
    "resnet18_cbam": dict(depths=(1, 1), widths=(4, 8)),
}


@pytest.mark.parametrize(
    ("trunk", "decoder"),
    slow_but(
        [("swin_tiny", "fpn"), ("nat_mini", "unet"), ("resnet18_cbam", "fpn")], itertools.product(TRUNKS, DECODERS)
    ),
)
def test_a_frozen_encoder_gives_in_training_the_maps_of_inference(trunk, decoder):
    """Batch normalisation does not use the batch, and stochastic depth drops nothing, until the encoder is freed."""
    options = dict(backbone=trunk, backbone_options=TRUNKS[trunk], input_shape=(64, 64, 3), num_classes=3)
    model = randomise(kzoo.build(decoder, **options))
    maps, images = kzoo.backbone(model, trunk), pixels(8, 64, 64, 3)
    expected = maps(images, training=False)

    def largest_difference():
        found = maps(images, training=True)
        return max(float(np.abs(found[name] - expected[name]).max()) for name in expected)

    kzoo.freeze_backbone(model)
    assert largest_difference() == 0
    kzoo.freeze_backbone(model, frozen=False)
    assert largest_difference() > 0.1
