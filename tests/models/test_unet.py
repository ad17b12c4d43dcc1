"""U-Nets: sizes, options, attention in three places, and mistakes. Their numbers are in test_unet_parity.py."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise, relative_error

import kzoo
from kzoo.errors import InvalidValueError, UnknownNameError, UnknownOptionError
from kzoo.models.unet import UNetConfig

NARROW = dict(widths=(4, 6, 8), num_classes=3)
TRUNK = dict(depths=(1, 1, 1, 1), widths=(4, 6, 8, 10))
ON_RESNET = dict(backbone="resnet18", backbone_options=TRUNK, num_classes=3)


def test_sizes_of_the_unpadded_network():
    config = UNetConfig()
    assert (config.output_size(572), config.output_size(188), config.smallest_input) == (388, 4, 188)
    assert [size for size in range(560, 592) if config.output_size(size)] == [572, 588]
    small = UNetConfig(widths=(4, 6, 8))
    for size in range(small.smallest_input, 60):
        expected = small.output_size(size)
        if expected is None:
            with pytest.raises(InvalidValueError, match=rf"{size}×{size} does not fit the unpadded U-Net"):
                kzoo.build("unet", input_shape=(size, size, 3), **NARROW)
        else:
            assert kzoo.build("unet", input_shape=(size, 44, 3), **NARROW).output.shape == (None, expected, 4, 3)


def test_message_for_a_size_that_does_not_fit():
    with pytest.raises(InvalidValueError, match=r"use 556 or 572 instead of 570, or padding='same'"):
        kzoo.build("unet", input_shape=(572, 570, 3))
    with pytest.raises(InvalidValueError, match="needs at least 188×188 pixels"):
        kzoo.build("unet", input_shape=(187, 572, 3))


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
@pytest.mark.parametrize("options", [dict(padding="same", **NARROW), ON_RESNET], ids=["unet", "on_resnet18"])
def test_any_size_gives_what_a_fixed_size_gives(options, upsampling):
    options = dict(options, upsampling=upsampling, classifier_activation=None)
    free = randomise(kzoo.build("unet", input_shape=(None, None, 3), **options))
    for size in ((64, 32), (45, 61)):
        fixed = kzoo.build("unet", input_shape=(*size, 3), **options)
        fixed.set_weights(free.get_weights())
        images = pixels(2, *size, 3)
        assert fixed.output.shape == (None, *size, 3)
        assert relative_error(free(images), fixed(images)) < 1e-6


def test_probabilities_of_every_pixel():
    model = randomise(kzoo.build("unet", padding="same", **NARROW))
    outputs = np.array(model(pixels(2, *model.input.shape[1:])))
    np.testing.assert_allclose(outputs.sum(axis=-1), 1, atol=1e-5)


def layers_with(model, text: str) -> list[str]:
    return [layer.name for layer in model.layers if text in layer.name]


@pytest.mark.parametrize("attention", ["se", "cbam", "non_local", "stand_alone"])
@pytest.mark.usefixtures("without_values")
def test_attention_in_each_place(attention):
    options = dict(padding="same", input_shape=(32, 24, 3), widths=(16, 16, 32), num_classes=3)
    without = kzoo.build("unet", **options)
    places = dict(attention="stage", decoder_attention="unet_p", skip_attention="skip_attention")
    counts = dict(attention=3, decoder_attention=2, skip_attention=2)
    for option, place in places.items():
        model = kzoo.build("unet", **options, **{option: attention})
        added = {layer.name for layer in model.layers} - {layer.name for layer in without.layers}
        assert len(added) == counts[option]
        assert all(place in name and name.endswith("attention") for name in added)
        assert kzoo.zoo.count_parameters(model) > kzoo.zoo.count_parameters(without)


def test_attention_of_ones_own():
    seen = []

    def halve(x, name):
        seen.append(name)
        return keras.layers.Rescaling(0.5, name=name)(x)

    model = kzoo.build("unet", padding="same", input_shape=(16, 16, 3), skip_attention=halve, **NARROW)
    assert seen == ["unet_p1_skip_attention", "unet_p0_skip_attention"]
    with pytest.raises(InvalidValueError, match="must return a map of shape"):
        kzoo.build("unet", **NARROW, decoder_attention=lambda x, name: x[:, 1:])
    assert layers_with(model, "skip_attention") == seen


@pytest.mark.usefixtures("without_values")
def test_attention_on_a_backbone_is_the_backbones():
    named = kzoo.build("unet", backbone="resnet18_cbam", num_classes=3)
    given = kzoo.build("unet", backbone="resnet18", attention="cbam", num_classes=3)
    assert [w.path for w in named.weights] == [w.path for w in given.weights]
    assert layers_with(named, "block1_attention")
    both = kzoo.build("unet", backbone="resnet18_cbam", attention="se", num_classes=3)
    assert isinstance(both.get_layer("stage1_block1_attention"), kzoo.layers.SqueezeExcite)


@pytest.mark.usefixtures("without_values")
def test_levels_choose_the_skips():
    all_levels = kzoo.build("unet", **ON_RESNET)
    assert layers_with(all_levels, "_concat") == [f"unet_p{level}_concat" for level in (4, 3, 2, 1)]
    some = kzoo.build("unet", levels=("p2", "p4"), **ON_RESNET)
    assert layers_with(some, "_concat") == ["unet_p2_concat"]
    assert "p5" not in kzoo.taps.tap_names(some)
    assert some.output.shape == all_levels.output.shape
    swin = kzoo.build("unet", backbone="swin_tiny", input_shape=(75, 64, 3), num_classes=3)
    assert layers_with(swin, "_concat") == [f"unet_p{level}_concat" for level in (4, 3, 2)]
    assert layers_with(swin, "_fit") == [f"unet_p{level}_fit" for level in (4, 3, 2, 0)]
    assert layers_with(swin, "tap_norm")


@pytest.mark.usefixtures("without_values")
def test_without_its_top_the_decoders_map():
    model = kzoo.build("unet", include_top=False, padding="same", input_shape=(20, 28, 3), **NARROW)
    assert model.output.shape == (None, 20, 28, 4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(backbone="resnet43"), UnknownNameError, "unknown model 'resnet43'; did you mean"),
        (dict(backbone="unet"), InvalidValueError, "backbone='unet' is itself a model on a backbone"),
        (dict(backbone="resnet18", levels=("p0", "p2")), UnknownNameError, "resnet18 has no tap 'p0'; it has p1, p2,"),
        (dict(backbone="swin_tiny", levels=("p1", "p2")), UnknownNameError, "swin_tiny has no tap 'p1'; it has p2,"),
        (dict(backbone="resnet18", levels=("p3", "p2")), InvalidValueError, "must be a tuple of taps, finest first"),
        (dict(backbone="resnet18", levels=("c2",)), InvalidValueError, "must be a tuple of taps, finest first"),
        (dict(backbone="resnet18", levels=()), InvalidValueError, "must be a tuple of taps, finest first"),
        (dict(backbone="resnet18", levels="p2"), InvalidValueError, "must be a tuple of taps, finest first"),
        (dict(levels=("p2", "p3")), InvalidValueError, "are taps of a backbone; give its name too"),
        (dict(backbone_options=dict(widths=(4,))), InvalidValueError, "need a backbone; give its name too"),
        (dict(backbone="resnet18", backbone_options=3), InvalidValueError, "must be a dict of the backbone's options"),
        (
            dict(backbone="resnet18", backbone_options=dict(width=3)),
            UnknownOptionError,
            "resnet18 has no option 'width'",
        ),
        (dict(backbone="resnet18", padding="valid"), InvalidValueError, "'valid' is not accepted with backbone="),
        (
            dict(backbone="resnet18", widths=(4, 8)),
            InvalidValueError,
            "has its own; change them with backbone_options",
        ),
        (dict(backbone="resnet18", decoder_widths=(4, 8)), InvalidValueError, "must have 5 numbers, .* p4 to p0"),
        (dict(padding="half"), InvalidValueError, "padding='half' is not accepted"),
        (dict(upsampling="bicubic"), InvalidValueError, "upsampling='bicubic' is not accepted"),
        (dict(upsampling="nearest"), InvalidValueError, "must not; use padding='same' or upsampling='transposed'"),
        (dict(widths=(4,)), InvalidValueError, "must have two levels or more"),
        (dict(widths=(4, 0)), InvalidValueError, "must be a tuple of positive integers, one per level"),
        (dict(widths=64), InvalidValueError, "must be a tuple of positive integers, one per level"),
        (dict(batch_norm=1), InvalidValueError, "batch_norm=1 must be True or False"),
        (dict(dropout=1.0), InvalidValueError, "dropout=1.0 must be a number of at least 0 and below 1"),
        (dict(skip_attention="cbm"), InvalidValueError, "attention='cbm' is not accepted"),
        (dict(decoder_attention=kzoo.layers.CBAM), InvalidValueError, "is a layer or its class"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        kzoo.build("unet", **options)
