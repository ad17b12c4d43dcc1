"""Logits equal to timm's, with the weights read from a file of torch names and layouts."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from goldens.seeded import seeded, seeded_images, seeded_map
from helpers import relative_error, slow_but

import kzoo
from kzoo.layers import CBAM, SqueezeExcite
from kzoo.weights.torch_names import torch_names
from kzoo.zoo import count_parameters

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "timm_resnet.npz")


def torch_state(model) -> dict[str, np.ndarray]:
    """Seeded arrays for every variable, under timm's names and in torch's layouts."""
    state = {}
    for variable in model.variables:
        name, shape = torch_names(variable.path, model)[0], tuple(variable.shape)
        if len(shape) == 4:
            shape = (shape[3], shape[2], *shape[:2])
        elif len(shape) == 2:
            # timm's SE and CBAM modules hold their dense layers as 1×1 convolutions
            shape = shape[::-1] + ((1, 1) if ".se." in name else ())
        state[name] = seeded(name, shape)
    return state


@pytest.mark.parametrize(
    "name", slow_but(["resnet18", "resnet50_cbam"], ["resnet18", "resnet50", "resnet50_se", "resnet50_cbam"])
)
def test_logits_equal_timm(name, tmp_path):
    model = kzoo.build(name, classifier_activation=None)
    assert count_parameters(model) == GOLDENS[f"{name}_parameters"]
    state = torch_state(model)
    safetensors.numpy.save_file(state, tmp_path / "model.safetensors")
    report = kzoo.load_weights(model, tmp_path / "model.safetensors")
    assert len(report.loaded) == len(model.variables) == len(state)
    error = relative_error(model(seeded_images(2, 224, 224, 3)), GOLDENS[name])
    print(f"{name}: {error:.2g}")
    assert error < 1e-5


def test_modules_equal_timm():
    x = seeded_map(2, 5, 7, 64)
    se = SqueezeExcite()
    se.build(x.shape)
    se.set_weights(
        [
            seeded("fc1.weight", (8, 64, 1, 1))[:, :, 0, 0].T,
            seeded("fc1.bias", (8,)),
            seeded("fc2.weight", (64, 8, 1, 1))[:, :, 0, 0].T,
            seeded("fc2.bias", (64,)),
        ]
    )
    assert relative_error(se(x), GOLDENS["se_module"]) < 1e-5

    cbam = CBAM()
    cbam.build(x.shape)
    cbam.set_weights(
        [
            seeded("channel.fc1.weight", (4, 64, 1, 1))[:, :, 0, 0].T,
            seeded("channel.fc2.weight", (64, 4, 1, 1))[:, :, 0, 0].T,
            seeded("spatial.conv.conv.weight", (1, 2, 7, 7)).transpose(2, 3, 1, 0),
            *(seeded(f"spatial.conv.bn.{n}", (1,)) for n in ("weight", "bias", "running_mean", "running_var")),
        ]
    )
    assert relative_error(cbam(x), GOLDENS["cbam_module"]) < 1e-5
