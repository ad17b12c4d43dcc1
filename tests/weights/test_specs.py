"""The table of public checkpoints, and building models as it says, without a network."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, pixels, randomise, relative_error, weights_of

import kzoo
from kzoo.errors import WeightsError
from kzoo.images import INTERPOLATION
from kzoo.models.blocks import PREPROCESSING
from kzoo.registry import lookup
from kzoo.weights import WEIGHTS, resolve
from kzoo.weights.keras_rules import RULES
from kzoo.weights.specs import PICKLES_ONLY

SPECS = [spec for specs in WEIGHTS.values() for spec in specs.values()]
KERAS = {
    "vgg16": (keras.applications.vgg16, "VGG16"),
    "vgg19": (keras.applications.vgg19, "VGG19"),
    "inception_v3_keras": (keras.applications.inception_v3, "InceptionV3"),
} | {
    f"resnet{depth}_{version}": (module, f"ResNet{depth}{suffix}")
    for version, module, suffix in (("v1", keras.applications.resnet, ""), ("v2", keras.applications.resnet_v2, "V2"))
    for depth in (50, 101, 152)
}
TORCH = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)


def constants(model) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of pixels of 0 to 1, measured on the first layer."""
    black, white = (model.get_layer("preprocessing")(np.full((1, 1, 1, 3), value)) for value in (0.0, 255.0))
    std = 1 / np.ravel(white - black)
    return -np.ravel(black) * std, std


@pytest.fixture
def donor(monkeypatch, tmp_path):
    """Makes a small random model of a name, whose weights every download then gives, and the list of downloads."""

    def make(name: str, **options):
        options = dict(input_shape=(lookup(name).narrow_size,) * 2 + (3,), **lookup(name).narrow | options)
        model = randomise(kzoo.build(name, **options))
        path = tmp_path / "donor.weights.h5"
        model.save_weights(path)
        asked = []
        monkeypatch.setattr("kzoo.weights.specs.fetch_keras", lambda *source: asked.append(source) or path)
        monkeypatch.setattr("kzoo.weights.specs.fetch_hub", lambda repository: asked.append(repository) or path)
        return model, options, asked

    return make


def test_there_are_checkpoints_for_every_family_that_has_some():
    assert len(SPECS) == 87
    assert set(WEIGHTS) == (
        {f"vgg{n}{suffix}" for n in (11, 13, 16, 19) for suffix in ("", "_bn")}
        | {f"resnet{n}" for n in (18, 34, 50, 101, 152)}
        | {"resnet50_se", "inception_v3", *KERAS}
        | {f"swin_{size}" for size in ("tiny", "small", "base", "large", "base_384", "large_384")}
    )
    assert not set(PICKLES_ONLY) & set(WEIGHTS)
    assert all(lookup(name) for name in PICKLES_ONLY)


@pytest.mark.quick
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.model}-{spec.name}")
def test_every_row_is_sound(spec):
    entry = lookup(spec.model)
    assert entry.input_shape == (spec.size, spec.size, 3)
    assert 0.8 < spec.crop <= 1
    assert spec.interpolation in INTERPOLATION
    assert spec.preprocessing in PREPROCESSING
    assert re.fullmatch(r"Apache-2\.0|BSD|BSD-3-Clause|CC-BY|CC-BY-NC-4\.0|MIT", spec.licence)
    assert spec.num_classes == (21841 if spec.name == "ms_in22k" else 1000)
    assert (spec.top1 is None) == (spec.published == "")
    assert spec.top1 is None or 65 < spec.top1 < 90
    assert spec.top1 is None or spec.published.startswith("https://")
    if spec.name == "keras_in1k":
        assert re.fullmatch(r"https://storage\.googleapis\.com/.*\.h5", spec.source)
        assert re.fullmatch("[0-9a-f]{32}", spec.file_hash)
    else:
        assert re.fullmatch(rf"hf://timm/\w+\.{spec.name}", spec.source)
        assert (spec.file_hash, spec.channel_order) == ("", "rgb")
    assert sum(other.source == spec.source for other in SPECS) == 1


def test_the_default_is_what_it_was_for_each_family():
    assert {model: next(iter(specs)) for model, specs in WEIGHTS.items() if model.startswith(("resnet", "vgg16"))} == (
        {f"resnet{n}": "a1_in1k" for n in (18, 34, 50, 101, 152)}
        | {f"resnet{n}_{version}": "keras_in1k" for n in (50, 101, 152) for version in ("v1", "v2")}
        | {"resnet50_se": "a1_in1k", "vgg16": "keras_in1k", "vgg16_bn": "tv_in1k"}
    )
    assert next(iter(WEIGHTS["inception_v3"])) == "tv_in1k"
    assert next(iter(WEIGHTS["swin_large"])) == "ms_in22k_ft_in1k"  # the only one with ImageNet-1K's classes


@pytest.mark.parametrize("name", KERAS)
def test_keras_applications_has_these_files_and_wants_these_constants(name):
    module, model = KERAS[name]
    spec = WEIGHTS[name]["keras_in1k"]
    folder = Path(getattr(keras.applications, model).__code__.co_filename).parent
    source = "".join((folder / f"{file}.py").read_text() for file in ("vgg16", "vgg19", "resnet", "inception_v3"))
    assert f'"{spec.file_hash}"' in source
    base, _, file = spec.source.rpartition("/")
    assert base.removeprefix("https://storage.googleapis.com/tensorflow/keras-applications/") in source
    assert file.partition("_weights_")[0] == model.lower().replace("inceptionv3", "inception_v3")

    images = pixels(1, 4, 5, 3)
    ours, colours = PREPROCESSING[spec.preprocessing], slice(None, None, -1 if spec.channel_order == "bgr" else 1)
    np.testing.assert_allclose(
        ((images - ours.mean) / ours.std)[..., colours], module.preprocess_input(images.copy()), atol=1e-4
    )


@pytest.mark.parametrize("name", ["vgg16", "resnet50_v1", "resnet50_v2", "inception_v3_keras"])
def test_loading_turns_the_colours_that_the_table_says(name):
    entry = lookup(name)
    model = kzoo.build(name, input_shape=(96, 96, 3), **entry.narrow)
    assert RULES[entry.family].reads_blue_first(model) == (WEIGHTS[name]["keras_in1k"].channel_order == "bgr")


@pytest.mark.parametrize(
    ("model", "name", "expected", "asked"),
    [
        ("vgg16", "imagenet", "caffe", "https"),
        ("vgg16", "keras_in1k", "caffe", "https"),
        ("vgg16", "tv_in1k", TORCH, "timm/vgg16.tv_in1k"),
        ("resnet34", "imagenet", TORCH, "timm/resnet34.a1_in1k"),
        ("resnet34", "ra4_e3600_r224_in1k", HALF, "timm/resnet34.ra4_e3600_r224_in1k"),
        ("resnet50_v2", "imagenet", HALF, "https"),
        ("resnet50_se", "ra2_in1k", TORCH, "timm/seresnet50.ra2_in1k"),
    ],
)
def test_preprocessing_follows_the_checkpoint(donor, model, name, expected, asked):
    short = dict(depths=(1, 1), widths=(4, 8)) if lookup(model).family == "resnet" else {}
    original, options, downloads = donor(model, **short)
    built = kzoo.build(model, weights=name, **options)
    assert_weights_are(built, weights_of(original))
    if expected == "caffe":
        expected = np.array((123.68, 116.779, 103.939)) / 255, np.full(3, 1 / 255)
    np.testing.assert_allclose(constants(built), expected, atol=1e-5)
    spec = resolve(model, name)[1]
    assert downloads == [(spec.source, spec.file_hash) if asked == "https" else asked]

    bare = kzoo.build(model, weights=name, include_preprocessing=False, **options)
    images = pixels(2, *options["input_shape"])
    normalised = (images / 255 - expected[0]) / expected[1]
    assert relative_error(built(images), bare(normalised.astype("float32"))) < 1e-5


def test_paths_and_addresses_of_known_checkpoints_have_their_preprocessing(donor, tmp_path):
    original, options, _ = donor("vgg16")
    (tmp_path / "vgg16.tv_in1k").mkdir()
    assert resolve("vgg16", tmp_path / "vgg16.tv_in1k")[1] is WEIGHTS["vgg16"]["tv_in1k"]
    known = [tmp_path / "vgg16.tv_in1k" / "model.safetensors", tmp_path / "vgg16.tv_in1k.safetensors"]
    known.append(tmp_path / "vgg16_weights_tf_dim_ordering_tf_kernels.h5")
    for path, name in zip(known, ("tv_in1k", "tv_in1k", "keras_in1k"), strict=True):
        path.touch()
        assert resolve("vgg16", str(path)) == (str(path), WEIGHTS["vgg16"][name])
    (tmp_path / "model.safetensors").touch()
    assert resolve("vgg16", str(tmp_path / "model.safetensors"))[1] is None

    for address in ("hf://timm/vgg16.tv_in1k", "hf://timm/vgg16.tv_in1k@main"):
        np.testing.assert_allclose(constants(kzoo.build("vgg16", weights=address, **options)), TORCH, atol=1e-6)
    assert resolve("vgg16", "hf://someone/vgg16.tv_in1k")[1] is None
    mine = tmp_path / "mine.weights.h5"
    original.save_weights(mine)
    caffe = np.array((123.68, 116.779, 103.939)) / 255, np.full(3, 1 / 255)
    np.testing.assert_allclose(constants(kzoo.build("vgg16", weights=mine, **options)), caffe, atol=1e-6)


def test_a_file_that_somebody_brings_is_not_downloaded(donor, tmp_path):
    """Not even one with the public name."""
    original, options, downloads = donor("resnet50_v1")
    path = tmp_path / "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
    (tmp_path / "donor.weights.h5").rename(path)
    assert_weights_are(kzoo.build("resnet50_v1", weights=path, **options), weights_of(original))
    assert downloads == []


def test_classes_follow_the_checkpoint(donor):
    original, options, _ = donor("swin_tiny", num_classes=21841)
    options = {option: value for option, value in options.items() if option != "num_classes"}
    full = kzoo.build("swin_tiny", weights="ms_in22k", **options)
    assert full.output.shape == (None, 21841)
    assert_weights_are(full, weights_of(original))
    few = kzoo.build("swin_tiny", weights="ms_in22k", num_classes=5, **options)
    assert few.output.shape == (None, 5)
    for few_weight, weight in zip(weights_of(few)[:-2], weights_of(original)[:-2], strict=True):
        np.testing.assert_array_equal(few_weight, weight)
    with pytest.raises(WeightsError, match="does not fit swin_tiny"):  # the file has 21841
        kzoo.build("swin_tiny", weights="imagenet", **options)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "nat_mini",
            r"no checkpoint known for nat_mini \(it is published as a pickle alone, at https://github.com/SHI",
        ),
        (
            "googlenet_bn",
            r"known for googlenet_bn \(it is published as a pickle alone, .*convert it .*\); pass 'hf://o",
        ),
        ("googlenet_bn_se", r"known for googlenet_bn_se \(it is published as a pickle alone, "),
        (
            "resnet50_sasa",
            "weights='imagenet' is no file and no checkpoint known for resnet50_sasa, which has no public weights; "
            "pass 'hf://owner/",
        ),
    ],
)
def test_names_without_checkpoints_say_so(model, message):
    with pytest.raises(WeightsError, match=message):
        kzoo.build(model, weights="imagenet")
