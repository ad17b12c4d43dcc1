"""kzoo: a model zoo for Keras 3, from the paper to the edge device.

>>> import kzoo
>>> model = kzoo.build("resnet50_cbam")

The public names stand in `__init__.pyi`. Each is imported when it is asked for, so that what needs no Keras, such as
`kzoo --help`, answers at once.
"""

import lazy_loader

from kzoo import onednn  # noqa: F401  before Keras: TensorFlow asks for oneDNN once, when it is loaded
from kzoo.after_keras import import_after_keras

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

import_after_keras("kzoo.layers")  # its layers are then known to `keras.models.load_model`
