"""Writes swin.npz: what timm's and torchvision's Swin transformers compute with seeded weights."""

from pathlib import Path

import numpy as np
import torch
from make_timm_goldens import MEAN, STD, timm, with_seeded_weights  # before torchvision, which it makes importable
from seeded import seeded_pictures
from torchvision.models.swin_transformer import SwinTransformer

SMALL = dict(num_classes=10, embed_dim=16, num_heads=(2, 2, 4, 4))
# Maps of odd sizes in every stage. timm rolls a map before it pads it, so its model has no shifted blocks; its last
# stages are smaller than a window. torchvision does not clamp windows, so its maps are all larger than them.
PADDED = {"timm": (100, 76), "torchvision": (148, 132)}


def images(height: int, width: int) -> torch.Tensor:
    """Two normalised images, channels first."""
    pixels = torch.from_numpy(seeded_pictures(height, width)).float() / 255
    return ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


@torch.no_grad()
def main() -> None:
    name = "swin_tiny_patch4_window7_224"
    tiny = timm.create_model(name, pretrained=False)
    unshifted = timm.create_model(name, pretrained=False, img_size=PADDED["timm"], depths=(1, 1, 1, 1), **SMALL)
    shifted = SwinTransformer([4, 4], depths=[2, 2, 2, 2], window_size=[4, 4], stochastic_depth_prob=0, **SMALL)
    goldens = {
        "swin_tiny": with_seeded_weights(tiny)(images(224, 224)).numpy(),
        "timm_padded": with_seeded_weights(unshifted)(images(*PADDED["timm"])).numpy(),
        "torchvision_padded": with_seeded_weights(shifted)(images(*PADDED["torchvision"])).numpy(),
    }
    np.savez_compressed(Path(__file__).with_name("swin.npz"), **goldens)
    for name, array in goldens.items():
        print(name, array.shape, f"largest {np.abs(array).max():.4g}")


if __name__ == "__main__":
    main()
