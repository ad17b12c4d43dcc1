"""VGG files of timm and torchvision: both layouts of the dense head, trunks, and logits equal to theirs."""

from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
from goldens.seeded import seeded, seeded_pictures
from helpers import assert_weights_are, pixels, randomise, relative_error, weights_of

import kzoo
from kzoo.errors import WeightsError
from kzoo.registry import lookup
from kzoo.weights import WEIGHTS, resolve
from kzoo.weights.torch_names import torch_names
from kzoo.zoo import count_parameters

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "vgg.npz")
TIMM, TORCHVISION = 0, 1  # which of the names of a layer
SMALL = dict(depths=(1, 2), widths=(8, 12), dense_units=24, map_size=None, num_classes=10, classifier_activation=None)
SHAPE = (8, 12, 3)  # of the images, which give maps of 2×3


def torch_shape(variable, library: int, map_shape: tuple[int, int]) -> tuple[int, ...]:
    """The shape of a variable's array in a file of `library`."""
    shape = tuple(variable.shape)
    if len(shape) == 4:
        return (shape[3], shape[2], *shape[:2])
    if len(shape) == 2:
        shape = shape[::-1]
        if library == TIMM and "fc1" in variable.path:
            return (shape[0], shape[1] // np.prod(map_shape), *map_shape)
        if library == TIMM and "fc2" in variable.path:
            return (*shape, 1, 1)
    return shape


def torch_state(model, library: int, map_shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Seeded arrays of He's scale for every variable, as make_vgg_goldens.py has them."""
    state = {}
    for variable in model.weights:
        name = torch_names(variable.path, model)[library if "head_" in variable.path else 0]
        shape = torch_shape(variable, library, map_shape)
        state[name] = seeded(name, shape) * np.float32(2**0.5 if len(shape) > 1 else 1)
    return state


@pytest.mark.slow
@pytest.mark.parametrize("golden", ["timm_vgg11", "timm_vgg11_bn", "timm_vgg16_bn", "torchvision_vgg11"])
def test_logits_equal(golden, tmp_path):
    library, _, name = golden.partition("_")
    model = kzoo.build(name, classifier_activation=None)
    assert count_parameters(model) == GOLDENS[f"{golden}_parameters"]
    state = torch_state(model, TIMM if library == "timm" else TORCHVISION, (7, 7))
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(state, path)
    report = kzoo.load_weights(model, path)
    path.unlink()  # half a gigabyte
    assert len(report.loaded) == len(model.weights) == len(state)
    error = relative_error(model(seeded_pictures(224, 224)), GOLDENS[golden])
    print(f"{golden}: {error:.2g}")
    assert error < 1e-5


def small(**options) -> keras.Model:
    return randomise(kzoo.build("vgg16_bn", **SMALL | dict(input_shape=SHAPE) | options))


def save(state, path: Path) -> Path:
    safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in state.items()}, path)
    return path


def test_names_are_numbered_in_one_row():
    assert list(torch_state(small(), TIMM, (2, 3))) == [
        *("features.0.weight", "features.0.bias"),
        *(f"features.1.{kind}" for kind in ("weight", "bias", "running_mean", "running_var")),
        *("features.4.weight", "features.4.bias"),
        *(f"features.5.{kind}" for kind in ("weight", "bias", "running_mean", "running_var")),
        *("features.7.weight", "features.7.bias"),
        *(f"features.8.{kind}" for kind in ("weight", "bias", "running_mean", "running_var")),
        *("pre_logits.fc1.weight", "pre_logits.fc1.bias", "pre_logits.fc2.weight", "pre_logits.fc2.bias"),
        *("head.fc.weight", "head.fc.bias"),
    ]
    plain = kzoo.build("vgg16", widths=(8,) * 5, include_top=False)  # torchvision's documented indices
    convs = [layer.name for layer in plain.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [torch_names(f"{name}/bias", plain) for name in convs] == [
        [f"features.{index}.bias"] for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    ]
    assert torch_names("stage1_attention1/reduce/kernel", small(attention="se")) == []


def test_dense_head_by_hand(tmp_path):
    """Both libraries' files against a sum over the last map, channels first, as torch writes it."""
    images = pixels(2, *SHAPE)
    for library in (TIMM, TORCHVISION):
        model = small()
        state = torch_state(model, library, (2, 3))
        report = kzoo.load_weights(model, save(state, tmp_path / "model.safetensors"))
        assert len(report.loaded) == len(state)
        adapted = {"head_fc1/kernel": "2×3 convolution to dense", "head_fc2/kernel": "1×1 convolution to dense"}
        assert report.adapted == (adapted if library == TIMM else {})
        names = torch_names("head_fc1/kernel", model), torch_names("head_fc1/bias", model)
        kernel, bias = (state[name[library]] for name in names)
        maps = keras.Model(model.input, [model.get_layer("p2").output, model.get_layer("head_fc1").output])
        last, units = maps(images)
        expected = np.einsum("bhwc,uchw->bu", last, kernel.reshape(24, 12, 2, 3)) + bias
        assert relative_error(units, expected) < 1e-5


@pytest.mark.parametrize("library", [TIMM, TORCHVISION])
def test_trunks_and_other_classifiers_take_whole_files(library, tmp_path):
    whole = small()
    state = torch_state(whole, library, (2, 3))
    path = save(state, tmp_path / "model.safetensors")
    kzoo.load_weights(whole, path)
    trunk = small(include_top=False, input_shape=(None, None, 3))
    report = kzoo.load_weights(trunk, path)
    assert len(report.loaded) == len(state) - 6 == len(trunk.weights)
    images = pixels(2, *SHAPE)
    np.testing.assert_array_equal(trunk(images), keras.Model(whole.input, whole.get_layer("p2").output)(images))
    report = kzoo.load_weights(small(num_classes=7), path, head="if_fits")
    assert report.initialised == ["head_dense/kernel", "head_dense/bias"]


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_trunks_take_whole_keras_files(suffix, tmp_path):
    whole = small()
    path = tmp_path / f"model{suffix}"
    whole.save(path) if suffix == ".keras" else whole.save_weights(path)
    trunk = small(include_top=False)
    assert len(kzoo.load_weights(trunk, path).loaded) == len(trunk.weights)


def test_a_dense_head_of_another_size_does_not_fit(tmp_path):
    path = save(torch_state(small(), TIMM, (2, 3)), tmp_path / "model.safetensors")
    with pytest.raises(
        WeightsError, match=r"pre_logits.fc1.weight has shape \(72, 24\) .* head_fc1/kernel \(48, 24\)"
    ):
        kzoo.load_weights(small(input_shape=(8, 8, 3)), path)
    with pytest.raises(WeightsError, match="4 are unexpected: pre_logits"):
        kzoo.load_weights(small(head="average", num_classes=24), path)


CAFFE, TORCH_CONSTANTS = (1.0, -103.939), (1 / (0.225 * 255), -0.406 / 0.225)


def blue(model) -> tuple[float, float]:
    layer = model.get_layer("preprocessing")
    return float(layer.scale[2]), float(layer.offset[2])


def vgg16_file(tmp_path, name: str) -> tuple[Path, dict]:
    """A file with torch names for a narrow vgg16, and the options that build it."""
    entry = lookup("vgg16")
    options = dict(input_shape=(64, 96, 3), **entry.narrow)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(torch_state(kzoo.build("vgg16", **options), TIMM, (2, 3)), path), options


@pytest.mark.parametrize(
    "name",
    ["mine.safetensors", "vgg16.tv_in1k.safetensors", "models--timm--vgg16.tv_in1k/snapshots/1a2b/model.safetensors"],
)
def test_a_file_with_torch_names_gets_the_normalisation_of_torch(tmp_path, name):
    path, options = vgg16_file(tmp_path, name)
    assert blue(kzoo.build("vgg16", **options)) == pytest.approx(CAFFE)
    assert blue(kzoo.build("vgg16", weights=path, **options)) == pytest.approx(TORCH_CONSTANTS)


def test_a_relative_path_keeps_its_checkpoint(tmp_path, monkeypatch):
    path, options = vgg16_file(tmp_path, "vgg16.tv_in1k/model.safetensors")
    monkeypatch.chdir(path.parent)
    assert blue(kzoo.build("vgg16", weights="model.safetensors", **options)) == pytest.approx(TORCH_CONSTANTS)
    assert resolve("vgg16", "hf://timm/vgg16.tv_in1k/")[1] is WEIGHTS["vgg16"]["tv_in1k"]


def test_a_model_with_another_normalisation_refuses_a_known_checkpoint(tmp_path, caplog):
    path, options = vgg16_file(tmp_path, "vgg16.tv_in1k.safetensors")
    model = kzoo.build("vgg16", **options)
    before = weights_of(model)
    with pytest.raises(WeightsError, match=r"'torch' normalisation, and vgg16 was built with another; give .*build"):
        kzoo.load_weights(model, path)
    assert_weights_are(model, before)
    kzoo.load_weights(kzoo.build("vgg16", include_preprocessing=False, **options), path)
    assert caplog.text == ""
    kzoo.load_weights(model, path.rename(tmp_path / "mine.safetensors"))
    assert "seems to have weights for images with the 'torch' normalisation" in caplog.text
