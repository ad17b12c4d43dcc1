"""Writes inception.npz: logits of torchvision's GoogLeNet and of timm's and torchvision's Inception v3.

The weights are seeded. GoogLeNet also reads images with odd sides, where pooling in ceil mode shows.
"""

from pathlib import Path

import numpy as np
import torch
from make_timm_goldens import with_seeded_weights  # first: it makes torchvision importable
from seeded import seeded_pictures

import timm  # isort: skip
import torchvision  # isort: skip

GOOGLENET = dict(weights=None, init_weights=False, transform_input=False)


def images(height: int, width: int) -> torch.Tensor:
    """Pixels normalised to -1 ... 1, which both networks' published weights want."""
    return (torch.from_numpy(seeded_pictures(height, width)).float() / 127.5 - 1).permute(0, 3, 1, 2)


def with_lively_weights(model: torch.nn.Module) -> torch.nn.Module:
    """Seeded weights, but kernels of He's scale: there is no residual sum here that could grow, and with less
    the logits hardly depend on the image.
    """
    for weight in with_seeded_weights(model).parameters():
        if weight.ndim == 4:
            weight.mul_(2**0.5)
    return model


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def main() -> None:
    goldens = {}
    for auxiliary in (False, True):
        suffix = "_auxiliary" * auxiliary
        model = torchvision.models.googlenet(aux_logits=auxiliary, **GOOGLENET)
        goldens[f"googlenet_bn{suffix}_parameters"] = parameters(model)
        model = timm.create_model("inception_v3", aux_logits=auxiliary)
        goldens[f"inception_v3{suffix}_parameters"] = parameters(model)

    model = with_lively_weights(torchvision.models.googlenet(aux_logits=True, **GOOGLENET))
    model.training = True  # of the whole alone: its layers still evaluate, and the auxiliary heads run
    for name, size in {"googlenet_bn": (224, 224), "googlenet_bn_odd": (97, 143)}.items():
        outputs = model(images(*size))
        goldens[name], goldens[f"{name}_auxiliary1"], goldens[f"{name}_auxiliary2"] = (
            outputs.logits.numpy(),
            outputs.aux_logits1.numpy(),
            outputs.aux_logits2.numpy(),
        )
    model = with_lively_weights(timm.create_model("inception_v3", aux_logits=True))
    x = images(299, 299)
    goldens["inception_v3"], goldens["inception_v3_auxiliary1"] = (logits.numpy() for logits in model(x))
    twin = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=False)
    theirs = with_lively_weights(twin)(x).numpy()
    assert np.abs(theirs - goldens["inception_v3"]).max() < 1e-5 * np.abs(theirs).max()

    np.savez_compressed(Path(__file__).with_name("inception.npz"), **goldens)
    for name, array in goldens.items():
        print(name, array if np.ndim(array) == 0 else f"{array.shape} largest {np.abs(array).max():.4g}")


if __name__ == "__main__":
    main()
