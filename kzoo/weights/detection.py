"""Facts of torchvision's public detectors: the names of their classes, and how large they see pictures."""

import functools
from importlib import resources

# torchvision 0.29, `RetinaNet` and `FCOS`: `min_size` and `max_size`
SHORTEST, LONGEST = 800, 1333  # pixels: of the shorter side, and of the longer one at most


@functools.cache
def coco_classes() -> tuple[str, ...]:
    """The 91 classes of torchvision's weights for COCO, in their order, with `__background__` first and ten `N/A`."""
    return tuple((resources.files(__package__) / "coco_classes.txt").read_text(encoding="utf-8").splitlines())


def picture_size(height: int, width: int, shortest: int = SHORTEST, longest: int = LONGEST) -> tuple[int, int]:
    """Height and width to which torchvision's detectors resize a picture, bilinearly and without antialiasing.

    The shorter side becomes `shortest` pixels, or fewer where the longer one would pass `longest`. A model built with
    this `input_shape` pads it to multiples of 32 itself.

    >>> picture_size(480, 640)
    (800, 1066)
    """
    scale = min(shortest / min(height, width), longest / max(height, width))
    return int(height * scale), int(width * scale)
