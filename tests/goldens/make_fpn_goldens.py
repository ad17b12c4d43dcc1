"""Writes fpn.npz: torchvision's feature pyramid and a semantic head written from its paper, with seeded weights.

The neck is torchvision's `FeaturePyramidNetwork` (arXiv:1612.03144) with its two kinds of extra levels. The head is
that of Panoptic FPN (arXiv:1901.02446, section 3.1 and figure 3), which torchvision does not have, in torch here.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from make_nat_goldens import Weights  # makes torchvision importable, too
from make_timm_goldens import with_seeded_weights
from seeded import seeded_map
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7

CHANNELS = (5, 6, 7, 8)  # of p2 to p5
WIDTH = 6
# what stride-2 convolutions with symmetric padding make of images of 128×96 and 137×107: half of a side, rounded up
SIZES = {"even": ((32, 24), (16, 12), (8, 6), (4, 3)), "odd": ((35, 27), (18, 14), (9, 7), (5, 4))}
CLASSES = 3
SAMPLES = slice(1, None, 3)  # every place of a pixel among the 4×4 of the last upsampling comes


def maps(sizes) -> dict[str, torch.Tensor]:
    """Two maps of normal values for each level, by name."""
    named = zip(range(2, 6), sizes, CHANNELS, strict=True)
    return {f"p{level}": torch.from_numpy(seeded_map(2, *size, n)).permute(0, 3, 1, 2) for level, size, n in named}


def necks() -> dict[str, FeaturePyramidNetwork]:
    """RetinaNet's extra levels begin at the last map of the backbone, as that has other channels than p5."""
    extras = {"pool": LastLevelMaxPool(), "stride_c5": LastLevelP6P7(CHANNELS[-1], WIDTH)}
    return {name: with_seeded_weights(FeaturePyramidNetwork(CHANNELS, WIDTH, extra)) for name, extra in extras.items()}


def semantic_head(levels: dict[str, torch.Tensor], weights: Weights) -> torch.Tensor:
    """From p2 to p5 to logits at the size of the image."""
    total = 0
    for level in range(2, 6):
        x = levels[f"p{level}"]
        for step in range(max(1, level - 2)):
            name = f"head.p{level}.{step}"
            x = F.conv2d(x, weights(f"{name}.conv.weight", WIDTH, x.shape[1], 3, 3), padding=1)
            norm = (f"{name}.norm.{kind}" for kind in ("running_mean", "running_var", "weight", "bias"))
            x = F.batch_norm(x, *(weights(each, WIDTH) for each in norm))
            x = enlarge(F.relu(x), 2) if level > 2 else F.relu(x)
        total = total + x
    logits = F.conv2d(total, weights("head.logits.weight", CLASSES, WIDTH, 1, 1), weights("head.logits.bias", CLASSES))
    return enlarge(logits, 4)


def enlarge(x: torch.Tensor, factor: int) -> torch.Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def channels_last(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def main() -> None:
    goldens = {}
    for size, sizes in SIZES.items():
        for name, neck in necks().items():
            levels = neck(maps(sizes))
            extra = {"p6": levels["pool"]} if name == "pool" else {each: levels[each] for each in ("p6", "p7")}
            goldens |= {f"{size}_{name}_{each}": channels_last(x) for each, x in extra.items()}
        goldens |= {f"{size}_p{level}": channels_last(levels[f"p{level}"]) for level in range(2, 6)}
    logits = channels_last(semantic_head(necks()["pool"](maps(SIZES["even"])), Weights()))
    goldens["head_logits"] = logits[:, SAMPLES, SAMPLES]
    for name, array in goldens.items():
        print(name, array.shape, f"largest {np.abs(array).max():.4g}, std {array.std():.3g}")
    np.savez_compressed(Path(__file__).with_name("fpn.npz"), **goldens)


if __name__ == "__main__":
    main()
