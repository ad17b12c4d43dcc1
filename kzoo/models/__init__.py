"""The families. Importing this package registers every model of the zoo."""

from kzoo.models import resnet

__all__ = ["resnet"]
