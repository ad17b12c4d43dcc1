"""Files that keras.applications models wrote give, from pixels, the outputs that these models give."""

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers import assert_weights_are, pixels, randomise, relative_error, weights_of
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group  # what Keras 2's save_weights did

import kzoo
from kzoo.errors import WeightsError

PREPROCESS = {
    "vgg16": keras.applications.vgg16.preprocess_input,
    "vgg19": keras.applications.vgg19.preprocess_input,
    "resnet50_v1": keras.applications.resnet.preprocess_input,
    "resnet50_v2": keras.applications.resnet_v2.preprocess_input,
    "inception_v3_keras": keras.applications.inception_v3.preprocess_input,
}
for _depth in ("101", "152"):
    PREPROCESS |= {f"resnet{_depth}_v{n}": PREPROCESS[f"resnet50_v{n}"] for n in (1, 2)}
FACTORY = {"inception_v3_keras": "InceptionV3", "vgg16": "VGG16", "vgg19": "VGG19"}
FACTORY |= {f"resnet{n}_v1": f"ResNet{n}" for n in (50, 101, 152)}
FACTORY |= {f"resnet{n}_v2": f"ResNet{n}V2" for n in (50, 101, 152)}
BLUE_FIRST = "blue, green, red to red, green, blue"


def theirs(name: str, **options) -> keras.Model:
    if options.get("include_top", True):
        options["classifier_activation"] = None
    return randomise(getattr(keras.applications, FACTORY[name])(weights=None, **options))


def save(model: keras.Model, path: Path) -> Path:
    """As Keras 2 wrote weights alone (`.h5`), or as Keras 3 writes them."""
    if path.name.endswith((".weights.h5", ".keras", "whole.h5")):
        model.save_weights(path) if ".weights" in path.name else model.save(path)
        return path
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)
    return path


def check(name: str, path: Path, blue_first: bool, **options) -> kzoo.WeightsReport:
    other = theirs(name, **options)
    model = kzoo.build(name, classifier_activation=None, **_ours(name, options))
    report = kzoo.load_weights(model, save(other, path))
    path.unlink()
    assert len(report.loaded) == len(model.weights)
    assert (BLUE_FIRST in report.adapted.values()) == blue_first
    images = pixels(2, *options["input_shape"])
    error = relative_error(model(images), other(PREPROCESS[name](images.copy())))
    print(f"{name}: {error:.2g}")
    assert error < 1e-5
    return report


def _ours(name: str, options: dict) -> dict:
    options = {{"classes": "num_classes"}.get(key, key): value for key, value in options.items()}
    return options | (dict(map_size=None) if name.startswith("vgg") else {})


@pytest.mark.parametrize(
    ("name", "file", "blue_first", "options"),
    [
        ("resnet50_v1", "a.h5", True, dict(classes=7)),
        pytest.param("resnet50_v2", "b.weights.h5", False, dict(include_top=False), marks=pytest.mark.slow),
    ],
)
def test_resnets(name, file, blue_first, options, tmp_path):
    report = check(name, tmp_path / file, blue_first, input_shape=(64, 64, 3), **options)
    assert report.adapted == ({"stem_conv/kernel": BLUE_FIRST} if blue_first else {})


def test_inception_whose_numbers_start_anywhere(tmp_path):
    shape = dict(input_shape=(80, 80, 3))
    keras.layers.Conv2D(1, 1)
    for _ in range(2):
        keras.layers.BatchNormalization()
    report = check("inception_v3_keras", tmp_path / "a.h5", False, classes=7, **shape)
    assert report.loaded["stem_conv1/kernel"] == "conv2d_1 (weight 0)"
    assert report.loaded["stem_bn1/beta"] == "batch_normalization_2 (weight 0)"
    assert report.loaded["mixed5b_branch5x5_conv1/kernel"] == "conv2d_7 (weight 0)"
    assert report.loaded["mixed7c_branch_pool_conv/kernel"] == "conv2d_94 (weight 0)"


def test_vgg_without_top(tmp_path):
    report = check("vgg16", tmp_path / "a.h5", True, include_top=False, input_shape=(64, 64, 3))
    assert report.loaded["stage5_conv3/bias"] == "block5_conv3 (weight 1)"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FACTORY))
@pytest.mark.parametrize("file", ["a.h5", "whole.h5", "b.weights.h5", "c.keras"])
def test_every_model_at_full_size(name, file, tmp_path):
    side = 299 if name.startswith("inception") else 224
    check(name, tmp_path / file, "_v2" not in name and "inception" not in name, input_shape=(side, side, 3))


VGG = dict(depths=(1, 2), widths=(8, 12), dense_units=24, map_size=None, input_shape=(8, 12, 3), num_classes=10)


def small_vgg() -> keras.Model:
    """A VGG with keras.applications' names, small enough for every test: maps of 2×3 before the dense layers."""
    x = inputs = keras.Input((8, 12, 3))
    for block, (depth, width) in enumerate(zip(VGG["depths"], VGG["widths"], strict=True), start=1):
        for number in range(1, depth + 1):
            name = f"block{block}_conv{number}"
            x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name=name)(x)
        x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(24, activation="relu", name="fc1")(x)
    x = keras.layers.Dense(24, activation="relu", name="fc2")(x)
    return randomise(keras.Model(inputs, keras.layers.Dense(10, name="predictions")(x)))


def test_dense_head_that_flattens_channels_last(tmp_path):
    other = small_vgg()
    path = save(other, tmp_path / "a.h5")
    model = kzoo.build("vgg16", classifier_activation=None, **VGG)
    report = kzoo.load_weights(model, path)
    assert report.adapted == {"stage1_conv1/kernel": BLUE_FIRST, "head_fc1/kernel": "map flattened channels first"}
    images = pixels(2, 8, 12, 3)
    assert relative_error(model(images), other(PREPROCESS["vgg16"](images.copy()))) < 1e-5


def test_heads_that_the_model_does_not_have(tmp_path):
    path = save(small_vgg(), tmp_path / "a.h5")
    trunk = kzoo.build("vgg16", weights=path, include_top=False, **VGG)
    three = kzoo.build("vgg16", weights=path, **VGG | dict(num_classes=3))
    average = kzoo.build("vgg16", weights=path, **VGG | dict(head="average", input_shape=(None, None, 3)))
    for model in (trunk, three, average):
        np.testing.assert_array_equal(
            model.get_layer("stage1_conv1").kernel, np.array(small_vgg().get_layer("block1_conv1").kernel)[:, :, ::-1]
        )
    larger = kzoo.build("vgg16", **VGG | dict(input_shape=(8, 8, 3)))
    before = weights_of(larger)
    with pytest.raises(WeightsError, match=r"fc1 \(weight 0\) has shape \(72, 24\) .*or with head='average'"):
        kzoo.load_weights(larger, path)
    assert_weights_are(larger, before)


def test_a_dense_head_from_a_file_without_one(tmp_path):
    other = small_vgg()
    trunk = keras.Model(other.input, other.get_layer("block2_conv2").output)
    path = save(trunk, tmp_path / "a.h5")
    with pytest.raises(WeightsError, match=r"no classifier; build with include_top=False, .*head='average' for a new"):
        kzoo.build("vgg16", weights=path, **VGG)
    model = kzoo.build("vgg16", weights=path, head="average", **VGG)  # a number of classes is given
    np.testing.assert_array_equal(model.get_layer("stage2_conv2").kernel, other.get_layer("block2_conv2").kernel)


def test_blue_first_and_four_channels(tmp_path):
    path = save(small_vgg(), tmp_path / "a.h5")
    model = kzoo.build("vgg16", **VGG | dict(input_shape=(8, 12, 4)))
    report = kzoo.load_weights(model, path)
    assert report.adapted["stage1_conv1/kernel"] == f"{BLUE_FIRST}; 3 input channels to 4: repeated and rescaled"
    blue, green, red = np.array(small_vgg().get_layer("block1_conv1").kernel).transpose(2, 0, 1, 3)
    expected = np.stack([red / 2, green, blue, red / 2], axis=2)
    np.testing.assert_allclose(model.get_layer("stage1_conv1").kernel, expected, rtol=1e-6)


def in_old_names(path: Path, layers: dict[str, str], weights: list[str]) -> None:
    """Renames layers and weights as the public files have them, and cuts their list in two as Keras 2 did."""
    with h5py.File(path, "a") as file:
        names = list(file.attrs["layer_names"])
        for name in names:
            arrays = [file[name][weight][()] for weight in file[name].attrs["weight_names"]]
            del file[name]
            group = file.create_group(layers.get(name, name))
            old = [f"{layers.get(name, name)}{suffix}:0" for suffix in weights[: len(arrays)]]
            group.attrs["weight_names"] = np.array([each.encode() for each in old]) if old else []
            for each, array in zip(old, arrays, strict=True):
                group[each] = array
        names = np.array([layers.get(name, name).encode() for name in names])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:3], names[3:]


@pytest.mark.parametrize("weights", [["_W_1", "_b_1"], ["/kernel", "/bias"]])
def test_names_of_the_published_files(weights, tmp_path):
    path = save(small_vgg(), tmp_path / "a.h5")
    model, same = (kzoo.build("vgg16", **VGG) for _ in range(2))
    kzoo.load_weights(same, path)
    in_old_names(path, {}, weights)
    kzoo.load_weights(model, path)
    assert_weights_are(model, weights_of(same))


RESNET = dict(depths=(1, 1), widths=(4, 8), num_classes=10)


def test_an_older_name_of_the_classifier(tmp_path):
    """A small network with keras.applications' names, the classifier's as in the public files."""
    model = randomise(kzoo.build("resnet50_v2", **RESNET))
    path = tmp_path / "a.h5"
    names = {
        "stem_conv": "conv1_conv",
        "stage1_block1_bn1": "conv2_block1_preact_bn",
        "stage1_block1_conv1": "conv2_block1_1_conv",
        "stage1_block1_bn2": "conv2_block1_1_bn",
        "stage1_block1_shortcut_conv": "conv2_block1_0_conv",
        "stage2_block1_bn3": "conv3_block1_2_bn",
        "stage2_block1_conv3": "conv3_block1_3_conv",
        "final_bn": "post_bn",
        "head_dense": "probs",
    }
    assert _their_names(model) | names == _their_names(model)
    with h5py.File(path, "w") as file:
        renamed = _their_names(model)
        file.attrs["layer_names"] = list(renamed.values())
        for mine, other in renamed.items():
            group = file.create_group(other)
            group.attrs["weight_names"] = [f"{other}/{weight.name}:0" for weight in model.get_layer(mine).weights]
            for weight in model.get_layer(mine).weights:
                group[f"{other}/{weight.name}:0"] = np.array(weight)
    again = kzoo.build("resnet50_v2", weights=path, **RESNET)
    assert_weights_are(again, weights_of(model))


def _their_names(model: keras.Model) -> dict[str, str]:
    from kzoo.weights.keras_rules import resnet

    names = resnet.layer_names(model, ["probs"])
    return {layer.name: names[layer.name] for layer in model.layers if layer.weights}


def test_files_of_another_architecture(tmp_path):
    path = save(small_vgg(), tmp_path / "a.h5")
    for name, options in (("resnet50_v1", RESNET), ("swin_tiny", {}), ("vgg16_bn", VGG)):
        model = kzoo.build(name, **options)
        before = weights_of(model)
        with pytest.raises(WeightsError, match=f"does not fit {name}"):
            kzoo.load_weights(model, path)
        assert_weights_are(model, before)
