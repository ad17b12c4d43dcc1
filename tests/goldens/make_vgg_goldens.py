"""Writes vgg.npz: what timm's and torchvision's VGGs compute with seeded weights. See README.md."""

from pathlib import Path

import numpy as np
import torch
from make_timm_goldens import MEAN, STD, with_seeded_weights  # first: it makes torchvision importable
from seeded import seeded_pictures

import timm  # isort: skip
import torchvision  # isort: skip

MODELS = {
    "timm_vgg11": lambda: timm.create_model("vgg11"),
    "timm_vgg11_bn": lambda: timm.create_model("vgg11_bn"),
    "timm_vgg16_bn": lambda: timm.create_model("vgg16_bn"),
    "torchvision_vgg11": torchvision.models.vgg11,
}


@torch.no_grad()
def main() -> None:
    pixels = torch.from_numpy(seeded_pictures(224, 224)).float() / 255
    images = ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    goldens = {}
    for name, make in MODELS.items():
        model = with_seeded_weights(make())
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(2**0.5)  # He's scale: with less, each ReLU fades the image behind the biases
        goldens[name] = model(images).numpy()
        goldens[f"{name}_parameters"] = sum(parameter.numel() for parameter in model.parameters())
        apart = np.abs(goldens[name][0] - goldens[name][1]).max()
        print(f"{name} {goldens[name].shape} largest {np.abs(goldens[name]).max():.4g} apart {apart:.4g}")
    np.savez_compressed(Path(__file__).with_name("vgg.npz"), **goldens)


if __name__ == "__main__":
    main()
