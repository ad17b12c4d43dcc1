"""How keras.applications names the layers of each family of the zoo.

A family's `layer_names(model, in_file)` takes a model and the names of a file's layers, and gives the name in the file
of each layer of the zoo, those of the classifier even where the model has none. `reads_blue_first(model)` tells
whether these weights want the channels of the image as blue, green, red.
"""

from types import ModuleType

from kzoo.weights.keras_rules import inception_v3, resnet, vgg

RULES: dict[str, ModuleType] = {"inception_v3": inception_v3, "resnet": resnet, "vgg": vgg}
