"""How torch code bases name the layers of each family of the zoo.

A family's `layer_names(layer, model)` takes the name of a layer, with those of layers inside it behind a slash
(`stage1_block1_attention/reduce`), and the model that it belongs to, and gives the names that it has in torch.
"""

from collections.abc import Callable

import keras

from kzoo.weights.torch_rules import resnet

LAYER_NAMES: dict[str, Callable[[str, keras.Model], tuple[str, ...]]] = {"resnet": resnet.layer_names}
