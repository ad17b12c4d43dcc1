"""How torch code bases name the layers of each family of the zoo.

A family's `layer_names(layer, model)` takes the name of a layer, with those of layers inside it behind a slash
(`stage1_block1_attention/reduce`), and the model that it belongs to, and gives the names that it has in torch.
"""

from collections.abc import Callable

import keras

from kzoo.weights.torch_rules import detector, googlenet, inception_v3, nat, resnet, swin, vgg

LAYER_NAMES: dict[str, Callable[[str, keras.Model], tuple[str, ...]]] = {
    "fcos": detector.layer_names,
    "googlenet": googlenet.layer_names,
    "inception_v3": inception_v3.layer_names,
    "nat": nat.layer_names,
    "resnet": resnet.layer_names,
    "retinanet": detector.layer_names,
    "swin": swin.layer_names,
    "vgg": vgg.layer_names,
}
