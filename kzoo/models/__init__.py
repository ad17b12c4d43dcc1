"""The families. Importing this package registers every model of the zoo."""

from kzoo.models import googlenet, inception_v3, nat, residual_attention, resnet, simple_cnn, swin, vgg

__all__ = ["googlenet", "inception_v3", "nat", "residual_attention", "resnet", "simple_cnn", "swin", "vgg"]
