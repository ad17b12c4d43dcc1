"""The families. Importing this package registers every model of the zoo."""

from kzoo.models import fpn, googlenet, inception_v3, nat, residual_attention, resnet, simple_cnn, swin, unet, vgg

__all__ = [
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
