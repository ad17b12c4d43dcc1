"""GoogLeNet and Inception v3 give torchvision's and timm's logits, with weights from files in torch's layout."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from goldens.seeded import seeded, seeded_pictures
from helpers import assert_weights_are, relative_error, slow_but, weights_of

import kzoo
from kzoo.errors import WeightsError
from kzoo.weights.torch_names import torch_names
from kzoo.zoo import count_parameters

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "inception.npz")


def write_torch_file(model, path: Path) -> Path:
    """Seeded arrays for every weight, under torch's names and in its layouts, with kernels of He's scale."""
    state = {}
    for variable in model.weights:
        name, shape = torch_names(variable.path, model)[0], tuple(variable.shape)
        if len(shape) == 4:
            state[name] = seeded(name, (shape[3], shape[2], *shape[:2])) * np.float32(2**0.5)
        else:
            state[name] = seeded(name, shape[::-1])
    safetensors.numpy.save_file(state, path)
    return path


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", ["googlenet_bn", "inception_v3"])
def test_sizes_are_theirs(name):
    assert count_parameters(kzoo.build(name)) == GOLDENS[f"{name}_parameters"]
    assert count_parameters(kzoo.build(name, auxiliary=True)) == GOLDENS[f"{name}_auxiliary_parameters"]


@pytest.mark.parametrize(
    ("name", "golden", "size"),
    [
        pytest.param("googlenet_bn", "googlenet_bn", (224, 224), marks=pytest.mark.slow),
        ("googlenet_bn", "googlenet_bn_odd", (97, 143)),
        pytest.param("inception_v3", "inception_v3", (299, 299), marks=pytest.mark.slow),
    ],
)
def test_logits_equal_theirs(name, golden, size, tmp_path):
    options = dict(input_shape=(*size, 3), classifier_activation=None)
    images = seeded_pictures(*size)
    model = kzoo.build(name, auxiliary=True, **options)
    file = write_torch_file(model, tmp_path / "model.safetensors")
    assert len(kzoo.load_weights(model, file).loaded) == len(model.weights)
    outputs = model(images)
    for output, logits in outputs.items():
        expected = GOLDENS[golden if output == "head" else f"{golden}_{output}"]
        error = relative_error(logits, expected)
        print(f"{golden} {output}: {error:.2g}")
        assert error < 1e-5

    plain = kzoo.build(name, **options)
    report = kzoo.load_weights(plain, file)  # the file's auxiliary heads are passed over
    assert len(report.loaded) == len(plain.weights)
    assert report.unexpected == []
    np.testing.assert_array_equal(plain(images), outputs["head"])


NARROW = {
    "googlenet_bn": dict(modules=("3a", "4a", "4d", "5a"), width=0.125, input_shape=(64, 64, 3)),
    "inception_v3": dict(modules=("5b", "6a", "7a", "7b"), width=0.125),
}


@pytest.mark.parametrize("name", NARROW)
def test_files_fit_other_classes(name, tmp_path):
    options = NARROW[name] | dict(auxiliary=True)
    donor = kzoo.build(name, **options)
    file = write_torch_file(donor, tmp_path / "model.safetensors")
    model = kzoo.build(name, num_classes=7, **options)
    before = weights_of(model)
    with pytest.raises(WeightsError, match=r"do not fit: .*the file is for another number of classes"):
        kzoo.load_weights(model, file)
    assert_weights_are(model, before)
    report = kzoo.load_weights(model, file, head="if_fits")
    assert len(report.initialised) == 2 * len(model.outputs)  # kernel and bias of every classifier
    assert all("head_dense" in path for path in report.initialised)


@pytest.mark.parametrize(
    ("name", "suffix"),
    slow_but(
        [("googlenet_bn", ".keras"), ("googlenet_bn", ".weights.h5")],
        [(name, suffix) for name in NARROW for suffix in (".weights.h5", ".keras")],
    ),
)
def test_keras_files_with_auxiliary_heads_load_without_them(name, suffix, tmp_path):
    trained = kzoo.build(name, auxiliary=True, **NARROW[name])
    path = tmp_path / f"model{suffix}"
    (trained.save_weights if suffix == ".weights.h5" else trained.save)(path)
    plain = kzoo.build(name, **NARROW[name])
    report = kzoo.load_weights(plain, path)
    assert len(report.loaded) == len(plain.weights)
    expected = {weight.path: np.array(weight) for weight in trained.weights}
    assert_weights_are(plain, [expected[weight.path] for weight in plain.weights])

    plain.save(path := tmp_path / "plain.keras")
    with pytest.raises(WeightsError, match=r"are missing: auxiliary1_"):
        kzoo.load_weights(trained, path)
