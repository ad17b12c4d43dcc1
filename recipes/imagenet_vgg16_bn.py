"""VGG-16 with batch normalisation (arXiv:1409.1556) on ImageNet, as torchvision trains it.

    python recipes/imagenet_vgg16_bn.py

Not run here. torchvision reports 73.36 % top-1 (`VGG16_BN_Weights.IMAGENET1K_V1`): the settings of its ResNet-50,
which `imagenet_resnet50` has, with a learning rate of 0.01 (`references/classification` of pytorch/vision). What
differs is as there, and so are the data.
"""

from kzoo.recipe import Published
from kzoo.train import load_recipe, main

RECIPE = load_recipe("imagenet_resnet50").replace(name="imagenet_vgg16_bn", model="vgg16_bn", learning_rate=0.01)
PUBLISHED = Published(0.7336, "torchvision, VGG16_BN_Weights.IMAGENET1K_V1")

if __name__ == "__main__":
    main(RECIPE)
