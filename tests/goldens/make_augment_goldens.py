"""Writes augment.npz: what torchvision's augmentation does to small pictures. See README.md.

The operations are those of `TrivialAugmentWide` and `RandAugment`, on tensors of bytes, with their default
interpolation; their ranges are the two classes' own.
"""

from pathlib import Path

import numpy as np
import torch
from seeded import seeded_images

# torchvision's compiled operators do not load beside the CPU build of torch; none of them is needed
_register_fake = torch.library.register_fake
torch.library.register_fake = lambda op, *args, **kwargs: (
    (lambda function: function) if str(op).startswith("torchvision::") else _register_fake(op, *args, **kwargs)
)

from torchvision.transforms import InterpolationMode, RandAugment, TrivialAugmentWide  # noqa: E402
from torchvision.transforms.autoaugment import _apply_op  # noqa: E402
from torchvision.transforms.functional import resized_crop  # noqa: E402

HEIGHT, WIDTH = 27, 38
NAMES = {
    "ShearX": [0.2713, -0.891],
    "ShearY": [0.137, -0.563],
    "TranslateX": [7.0, -11.0],
    "TranslateY": [5.0, -8.0],
    "Rotate": [22.3, -118.9],
    "Identity": [0.0],
    "Brightness": [0.51, -0.87],
    "Color": [0.83, -0.47],
    "Contrast": [0.93, -0.62],
    "Sharpness": [0.99, -0.75],
    "Posterize": [2.0, 5.0],
    "Solarize": [76.5, 255.0],
    "AutoContrast": [0.0],
    "Equalize": [0.0],
}
BOXES = [(3, 5, 14, 17), (0, 0, 27, 38), (9, 20, 18, 18)]  # top, left, height, width


def main() -> None:
    noise = torch.from_numpy(seeded_images(HEIGHT, WIDTH, 3)).permute(2, 0, 1)
    picture = (noise * 0.7 + 20).to(torch.uint8)  # so that contrasts can grow
    goldens = {"picture": picture.permute(1, 2, 0).numpy()}
    for name, magnitudes in NAMES.items():
        changed = [_apply_op(picture, name, each, InterpolationMode.NEAREST, None) for each in magnitudes]
        goldens[f"{name}_magnitudes"] = np.array(magnitudes, "float32")
        goldens[name] = torch.stack(changed).permute(0, 2, 3, 1).numpy()
    for policy, space in (
        ("trivial", TrivialAugmentWide()._augmentation_space(31)),
        ("rand", RandAugment()._augmentation_space(31, (HEIGHT, WIDTH))),
    ):
        goldens[policy] = np.stack([np.broadcast_to(space[name][0].numpy(), 31) for name in NAMES])
        goldens[f"{policy}_signed"] = np.array([space[name][1] for name in NAMES])
    goldens["boxes"] = np.array(BOXES)
    goldens["crops"] = np.stack(
        [resized_crop(picture, *box, [HEIGHT, WIDTH], antialias=True).permute(1, 2, 0).numpy() for box in BOXES]
    )
    np.savez_compressed(Path(__file__).with_name("augment.npz"), **goldens)
    print(
        *(f"{name} {array.shape} {array.min():.4g} to {array.max():.4g}" for name, array in goldens.items()), sep="\n"
    )


if __name__ == "__main__":
    main()
