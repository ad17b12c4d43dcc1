"""The families. Importing this package registers every model of the zoo.

family: one architecture: a module here, with a frozen config and `VARIANTS`, a config for each name.
tap: a feature map with a name: `p3` is the last map of stride 2³ = 8.
backbone: a classification network under a U-Net or a feature pyramid.
neck: a feature pyramid without its head: a dict of maps.
detector: boxes and scores on a feature pyramid.
head: what makes predictions of the maps.
narrow: overrides that give a small model of the same kind, for tests and `kzoo check`.
"""

from kzoo.models import (
    airbench,
    detectors,
    fpn,
    googlenet,
    inception_v3,
    nat,
    residual_attention,
    resnet,
    simple_cnn,
    swin,
    unet,
    vgg,
)

__all__ = [
    "airbench",
    "detectors",
    "fpn",
    "googlenet",
    "inception_v3",
    "nat",
    "residual_attention",
    "resnet",
    "simple_cnn",
    "swin",
    "unet",
    "vgg",
]
