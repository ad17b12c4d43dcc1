"""Writes timm_resnet.npz: what timm's models compute with seeded weights. See README.md for its environment."""

from pathlib import Path

import numpy as np
import torch
from seeded import seeded, seeded_images, seeded_map

# Only PyPI's torchvision wheel carries compiled operators for its torch; without them its import fails where it
# describes them. timm needs none of them.
_register_fake = torch.library.register_fake


def _skip_torchvision(op, *args, **kwargs):
    if isinstance(op, str) and op.startswith("torchvision::"):
        return lambda function: function
    return _register_fake(op, *args, **kwargs)


torch.library.register_fake = _skip_torchvision

import timm  # noqa: E402
from timm.layers import SEModule  # noqa: E402
from timm.layers.cbam import CbamModule  # noqa: E402

MODELS = {
    "resnet18": ("resnet18", {}),
    "resnet50": ("resnet50", {}),
    "resnet50_se": ("seresnet50", {}),
    "resnet50_cbam": ("resnet50", {"block_args": {"attn_layer": "cbam"}}),
}
MODULES = {"se_module": SEModule, "cbam_module": CbamModule}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def with_seeded_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Every weight and statistic of `module` from `seeded`."""
    state = module.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():  # not the number of batches, nor an index of relative positions
            state[name] = torch.from_numpy(seeded(name, tuple(tensor.shape)))
    module.load_state_dict(state)
    return module.eval()


@torch.no_grad()
def main() -> None:
    pixels = torch.from_numpy(seeded_images(2, 224, 224, 3)).float() / 255
    images = ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    goldens = {}
    for name, (timm_name, options) in MODELS.items():
        model = with_seeded_weights(timm.create_model(timm_name, pretrained=False, **options))
        goldens[name] = model(images).numpy()
        goldens[f"{name}_parameters"] = sum(parameter.numel() for parameter in model.parameters())
    features = torch.from_numpy(seeded_map(2, 5, 7, 64)).permute(0, 3, 1, 2)
    for name, module in MODULES.items():
        goldens[name] = with_seeded_weights(module(64))(features).permute(0, 2, 3, 1).numpy()
    np.savez_compressed(Path(__file__).with_name("timm_resnet.npz"), **goldens)
    for name, array in goldens.items():
        print(name, array if np.ndim(array) == 0 else f"{array.shape} largest {np.abs(array).max():.4g}")


if __name__ == "__main__":
    main()
