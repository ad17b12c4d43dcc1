"""Swin transformers: parameter counts, multiply-adds, equality with timm and torchvision, merging, taps, options."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
from goldens.seeded import seeded_pictures
from helpers import feature_map, pixels, randomise, relative_error, weights_of
from models.transformers import inner, layer_norm, load_seeded, rates

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.graph import count_macs
from kzoo.models.swin import patch_merging
from kzoo.registry import lookup
from kzoo.zoo import count_parameters

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "swin.npz")
NARROW = lookup("swin_tiny").narrow
# trainable parameters and GMACs with 1000 classes, as timm counts them
TIMM = {
    "swin_tiny": (28_288_354, 4.491),
    "swin_small": (49_606_258, 8.741),
    "swin_base": (87_768_224, 15.431),
    "swin_large": (196_532_476, 34.476),
    "swin_base_384": (87_903_584, 47.083),
}


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", TIMM)
def test_size_and_cost_are_timms(name):
    parameters, gmacs = TIMM[name]
    info = kzoo.describe(name)
    assert info.trainable_parameters == parameters
    assert round(info.macs / 1e9, 3) == gmacs
    assert info.input_shape == ((384, 384, 3) if name.endswith("384") else (224, 224, 3))


@pytest.mark.usefixtures("without_values")
def test_windows_of_12_add_a_table_of_their_own():
    configs = {name: lookup(name).config for name in ("swin_large", "swin_large_384")}
    assert configs["swin_large"].window_size == 7
    assert configs["swin_large_384"].window_size == 12
    small, large = (kzoo.build("swin_tiny", input_shape=(96, 96, 3), **NARROW | dict(window_size=w)) for w in (2, 3))
    heads = sum(depth * number for depth, number in zip(NARROW["depths"], NARROW["num_heads"], strict=True))
    assert count_parameters(large) - count_parameters(small) == heads * (5**2 - 3**2)


def test_logits_equal_timm(tmp_path):
    model = load_seeded(kzoo.build("swin_tiny", classifier_activation=None), tmp_path / "model.safetensors")
    error = relative_error(model(seeded_pictures(224, 224)), GOLDENS["swin_tiny"])
    print(f"swin_tiny: {error:.2g}")
    assert error < 1e-5


@pytest.mark.parametrize(
    ("golden", "layout", "size", "options"),
    [
        ("timm_padded", 0, (100, 76), dict(depths=(1, 1, 1, 1), window_size=7)),
        ("torchvision_padded", -1, (148, 132), dict(depths=(2, 2, 2, 2))),
    ],
)
def test_odd_maps_equal_the_references(golden, layout, size, options, tmp_path):
    """Maps that merging, windows and shifted windows all have to pad, and maps smaller than a window."""
    model = kzoo.build(
        "swin_tiny", input_shape=(*size, 3), num_classes=10, classifier_activation=None, **NARROW | options
    )
    load_seeded(model, tmp_path / "model.safetensors", layout)
    error = relative_error(model(seeded_pictures(*size)), GOLDENS[golden])
    print(f"{golden}: {error:.2g}")
    assert error < 1e-5


def test_buffers_in_a_file_are_passed_over(tmp_path):
    model = kzoo.build("swin_tiny", input_shape=(64, 64, 3), **NARROW)
    load_seeded(model, tmp_path / "model.safetensors")
    state = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    state["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((16, 16), "int64")
    state["layers.0.blocks.1.attn_mask"] = np.zeros((16, 16, 16), "float32")
    safetensors.numpy.save_file(state, tmp_path / "buffers.safetensors")
    assert len(kzoo.load_weights(model, tmp_path / "buffers.safetensors").loaded) == len(model.weights)


def test_checkpoints_load_beside_normalised_taps(tmp_path):
    options = dict(input_shape=(64, 64, 3), **NARROW)
    plain = load_seeded(kzoo.build("swin_tiny", **options), tmp_path / "model.safetensors")
    model = kzoo.build("swin_tiny", normalise_taps=True, **options)
    report = kzoo.load_weights(model, tmp_path / "model.safetensors", strict=False)
    norms = [f"stage{stage}_tap_norm/{kind}" for stage in (1, 2, 3) for kind in ("gamma", "beta")]
    assert report.missing == norms
    assert report.unexpected == []
    images = pixels(2, 64, 64, 3)
    np.testing.assert_array_equal(model(images), plain(images))


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 2)])
def test_patch_merging_against_a_loop(size):
    inputs = keras.Input((*size, 3))
    model = randomise(keras.Model(inputs, patch_merging(inputs, "merge")))
    x = feature_map(2, *size, 3)
    y = np.array(model(x))
    expected = np.zeros(y.shape)
    for i in range(-(-size[0] // 2)):
        for j in range(-(-size[1] // 2)):
            corners = [(2 * i, 2 * j), (2 * i + 1, 2 * j), (2 * i, 2 * j + 1), (2 * i + 1, 2 * j + 1)]
            four = [x[:, a, b] if a < size[0] and b < size[1] else np.zeros((2, 3)) for a, b in corners]
            merged = layer_norm(np.concatenate(four, axis=-1), model.get_layer("merge_norm"))
            expected[:, i, j] = merged @ np.array(model.get_layer("merge_dense").kernel)
    assert model.get_layer("merge_dense").bias is None
    assert relative_error(y, expected) < 1e-5


@pytest.mark.usefixtures("without_values")
def test_every_second_block_is_shifted():
    model = kzoo.build(
        "swin_tiny", input_shape=(128, 128, 3), **NARROW | dict(depths=(3, 1, 2, 1), window_size=(5, 4))
    )
    shifts = {layer.name: layer.shift_size for layer in model.layers if layer.name.endswith("_attention")}
    assert [name for name, shift in shifts.items() if shift == (2, 2)] == [
        "stage1_block2_attention",
        "stage3_block2_attention",
    ]
    assert set(shifts.values()) == {(0, 0), (2, 2)}


def test_stochastic_depth_rises_linearly():
    defaults = {name: lookup(name).config.drop_path_rate for name in ("swin_tiny", "swin_small", "swin_base")}
    assert defaults == {"swin_tiny": 0.2, "swin_small": 0.3, "swin_base": 0.5}
    model = kzoo.build("swin_tiny", input_shape=(64, 64, 3), **NARROW | dict(drop_path_rate=0.4))
    assert rates(model) == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4])  # two branches; none in the first
    without = kzoo.build("swin_tiny", input_shape=(64, 64, 3), **NARROW)
    assert rates(without) == []
    without.set_weights(randomise(model).get_weights())
    images = pixels(3, 64, 64, 3)
    np.testing.assert_array_equal(model(images), without(images))  # nothing at inference
    assert relative_error(model(images, training=True), without(images)) > 1e-3


@pytest.mark.slow
def test_learns_under_xla_with_stochastic_depth():
    model = randomise(
        kzoo.build("swin_tiny", input_shape=(64, 64, 3), num_classes=10, **NARROW | dict(drop_path_rate=0.4))
    )
    before = weights_of(model)
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
    losses = [model.train_on_batch(pixels(16, 64, 64, 3), np.arange(16) % 10) for _ in range(2)]
    assert np.isfinite(losses).all()
    assert [v.path for v, old in zip(model.weights, before, strict=True) if np.array_equal(v, old)] == []


def test_taps_of_images_of_odd_sizes():
    model = kzoo.build("swin_tiny", input_shape=(101, 67, 3), **NARROW)
    maps = kzoo.pyramid(model, ["p2", "p3", "p4", "p5"])(pixels(2, 101, 67, 3))
    assert {tap: tuple(x.shape) for tap, x in maps.items()} == {
        "p2": (2, 26, 17, 16),
        "p3": (2, 13, 9, 32),
        "p4": (2, 7, 5, 64),
        "p5": (2, 4, 3, 128),
    }


def test_images_are_padded_with_zeros_after_normalisation():
    options = NARROW | dict(include_preprocessing=False, classifier_activation=None)
    odd = randomise(kzoo.build("swin_tiny", input_shape=(67, 64, 3), **options))
    even = kzoo.build("swin_tiny", input_shape=(68, 64, 3), **options)
    even.set_weights(odd.get_weights())
    x = feature_map(2, 67, 64, 3)
    np.testing.assert_array_equal(odd(x), even(np.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0)))))


def test_normalised_taps_leave_the_trunk_alone(tmp_path):
    options = dict(input_shape=(64, 64, 3), classifier_activation=None, **NARROW)
    model = randomise(kzoo.build("swin_tiny", normalise_taps=True, **options))
    plain = kzoo.build("swin_tiny", **options)
    for layer in plain.layers:
        layer.set_weights(model.get_layer(layer.name).get_weights())
    images = pixels(3, 64, 64, 3)
    np.testing.assert_array_equal(model(images), plain(images))
    assert len(model.layers) == len(plain.layers) + 6

    taps, plain_taps = (kzoo.pyramid(each, ["p2", "p3", "p4", "p5"])(images) for each in (model, plain))
    for stage in (1, 2, 3):
        norm = model.get_layer(f"stage{stage}_tap_norm")
        tap = f"p{stage + 1}"
        assert relative_error(taps[tap], layer_norm(plain_taps[tap], norm)) < 1e-5
    np.testing.assert_array_equal(taps["p5"], plain_taps["p5"])
    assert count_macs(model) == count_macs(plain)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(kzoo.pyramid(loaded, ["p3"])(images)["p3"], taps["p3"])


@pytest.mark.slow
def test_normalised_taps_are_not_exported(tmp_path):
    images, reports = pixels(3, 64, 64, 3), []
    for normalise_taps in (True, False):
        model = kzoo.build("swin_tiny", input_shape=(64, 64, 3), normalise_taps=normalise_taps, **NARROW)
        folded = kzoo.fold_batch_norm(randomise(model))
        reports.append(kzoo.export(folded, tmp_path / f"{normalise_taps}.tflite", calibration=images))
    assert reports[0].ops == reports[1].ops
    assert reports[0].xnnpack_partitions == 1


def test_the_last_tap_is_normalised():
    model = randomise(kzoo.build("swin_tiny", input_shape=(64, 64, 3), **NARROW))
    images = pixels(2, 64, 64, 3)
    before = inner(model, "stage4_block1_mlp_add")(images)
    expected = layer_norm(before, model.get_layer("final_norm"))
    assert relative_error(kzoo.pyramid(model, ["p5"])(images)["p5"], expected) < 1e-5


@pytest.mark.parametrize("attention", ["se", lambda x, name: keras.layers.Rescaling(0.5, name=name)(x)])
@pytest.mark.usefixtures("without_values")
def test_attention_ends_every_mlp_branch(attention):
    model = kzoo.build("swin_tiny", input_shape=(64, 64, 3), attention=attention, **NARROW | dict(layer_scale=0.1))
    for stage, depth in enumerate(NARROW["depths"], start=1):
        for block in range(1, depth + 1):
            name = f"stage{stage}_block{block}_mlp"
            assert model.get_layer(f"{name}_attention").input is model.get_layer(f"{name}_dense2").output
            assert model.get_layer(f"{name}_scale").input is model.get_layer(f"{name}_attention").output
            assert model.get_layer(f"{name}_add").input[1] is model.get_layer(f"{name}_scale").output


NAME = re.compile(
    r"image|preprocessing|p[2-5]|stem_(conv|norm|pad)|final_norm|head_(pool|dense|activation)"
    r"|stage[1-4]_block\d+_(norm[12]|attention(_drop_path|_add)?|mlp_(dense[12]|gelu|drop_path|add))"
    r"|stage[2-4]_downsample_(pad|split|permute|merge|norm|dense)|stage[1-3]_(tap_norm|trunk)"
)


@pytest.mark.usefixtures("without_values")
def test_every_layer_has_a_name_of_the_contract():
    options = NARROW | dict(drop_path_rate=0.1, normalise_taps=True)
    model = kzoo.build("swin_tiny", input_shape=(101, 67, 3), **options)
    assert [layer.name for layer in model.layers if not NAME.fullmatch(layer.name)] == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(depths=(2, 2)), r"depths=\(2, 2\) and num_heads=\(3, 6, 12, 24\) must have one number per stage"),
        (dict(depths=6), "depths=6 must be a tuple of positive integers"),
        (dict(depths=(), num_heads=()), "one number per stage"),
        (dict(num_heads=(3, 6, 0, 24)), r"num_heads=\(3, 6, 0, 24\)"),
        (dict(width=100), r"width=100 must be a positive integer that num_heads\[0\]=3 divides"),
        (dict(width=0), "width=0"),
        (dict(num_heads=(3, 5, 12, 24)), "num_heads=5 does not divide channels=192"),
        (dict(mlp_ratio=0), "mlp_ratio=0 must be a number of at most 64"),
        (dict(drop_path_rate=1), "drop_path_rate=1 must be a number of at least 0 and below 1"),
        (dict(layer_scale=0), "layer_scale=0 must be a number above 0"),
        (dict(window_size=0), "window_size=0 must be"),
        (
            dict(attention="window"),
            "attention='window' fills a 'spatial' slot; these blocks have only a 'branch' slot",
        ),
        (dict(attention="sam"), "attention='sam' is not accepted"),
        (dict(input_shape=(None, None, 3)), "a Swin transformer needs images of known height and width"),
        (dict(input_shape=(224, 31, 3)), "needs at least 32×32 pixels"),
    ],
)
def test_bad_overrides(overrides, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.build("swin_tiny", **overrides)


@pytest.mark.slow
def test_full_size_runs_in_one_partition(tmp_path):
    model = randomise(kzoo.build("swin_tiny", classifier_activation=None))
    report = kzoo.export(model, tmp_path / "model.tflite", calibration=pixels(2, 224, 224, 3))
    print(f"swin_tiny: {sum(report.ops.values())} ops, {report.max_rel_error:.2g}")
    assert report.xnnpack_partitions == 1
    assert report.max_rel_error < 1e-4
