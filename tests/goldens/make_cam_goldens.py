"""Writes cams.npz: maps of pytorch-grad-cam on timm's ResNet-18 and Swin-T with seeded weights, as they are before it
cuts off what is negative and scales the rest."""

from pathlib import Path

import numpy as np
import torch
from make_timm_goldens import MEAN, STD, timm, with_seeded_weights  # before torchvision, which it makes importable
from pytorch_grad_cam import GradCAM, HiResCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from seeded import seeded_pictures

METHODS = {"grad_cam": GradCAM, "hires_cam": HiResCAM, "layer_cam": LayerCAM}
CLASSES = (3, 701)


def reshape_transform(tensor, height=7, width=7):
    """As the package's example for Swin has it (usage_examples/swinT_example.py)."""
    result = tensor.reshape(tensor.size(0), height, width, tensor.size(2))
    return result.transpose(2, 3).transpose(1, 2)


def channels_first(tensor):
    """Of a layer that gives maps; timm's last norm does."""
    return tensor.permute(0, 3, 1, 2)


def raw_maps(method, model, layer, images, reshape=None) -> np.ndarray:
    """What the method's `get_cam_image` gives, which the package cuts and scales afterwards."""
    cam, kept = method(model, [layer], reshape_transform=reshape), []
    make = cam.get_cam_image
    cam.get_cam_image = lambda *args: kept.append(make(*args)) or kept[-1]
    cam(images, [ClassifierOutputTarget(index) for index in CLASSES])
    cam.activations_and_grads.release()
    return kept[0].astype("float32")


def main() -> None:
    pixels = torch.from_numpy(seeded_pictures(224, 224)).float() / 255
    images = ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    resnet = with_seeded_weights(timm.create_model("resnet18", pretrained=False))
    swin = with_seeded_weights(timm.create_model("swin_tiny_patch4_window7_224", pretrained=False))
    layers = {
        "resnet18_p4": (resnet, resnet.layer3[-1], None),
        "resnet18_p5": (resnet, resnet.layer4[-1], None),
        "swin_tiny_norm2": (swin, swin.layers[-1].blocks[-1].norm2, reshape_transform),
        "swin_tiny_norm": (swin, swin.norm, channels_first),
    }
    goldens = {
        f"{place}_{name}": raw_maps(method, model, layer, images, reshape)
        for place, (model, layer, reshape) in layers.items()
        for name, method in METHODS.items()
    }
    np.savez_compressed(Path(__file__).with_name("cams.npz"), **goldens)
    for name, array in goldens.items():
        print(name, array.shape, f"from {array.min():.4g} to {array.max():.4g}")


if __name__ == "__main__":
    main()
