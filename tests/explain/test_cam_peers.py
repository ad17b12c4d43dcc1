"""Maps equal to pytorch-grad-cam's, and the models on which other packages fail."""

from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
from goldens.seeded import seeded_pictures
from helpers import pixels, randomise, relative_error, slow_but
from models.test_timm_parity import torch_state
from models.transformers import load_seeded

import kzoo
from kzoo import explain

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "cams.npz")
CAMS = ("grad_cam", "hires_cam", "layer_cam")


@pytest.mark.parametrize(
    ("name", "place", "layer"),
    slow_but(
        [("resnet18", "p4", "p4")],
        [
            ("resnet18", "p4", "p4"),
            ("resnet18", "p5", None),
            ("swin_tiny", "norm2", "stage4_block2_norm2"),
            ("swin_tiny", "norm", None),
        ],
    ),
)
def test_maps_are_those_of_pytorch_grad_cam(name, place, layer, tmp_path):
    """Before it cuts off what is negative and scales the rest; None is the layer that is explained by default."""
    model = kzoo.build(name, classifier_activation=None)
    if name == "swin_tiny":
        load_seeded(model, tmp_path / "model.safetensors")
    else:
        safetensors.numpy.save_file(torch_state(model), tmp_path / "model.safetensors")
        kzoo.load_weights(model, tmp_path / "model.safetensors")
    for method in CAMS:
        found = getattr(explain, method)(model, seeded_pictures(224, 224), [3, 701], layer)
        assert relative_error(found, GOLDENS[f"{name}_{place}_{method}"]) < 1e-4, method
