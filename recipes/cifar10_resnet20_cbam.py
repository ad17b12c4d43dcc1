"""ResNet-20 with CBAM (arXiv:1807.06521) on CIFAR-10: the recipe of `cifar10_resnet20` with another model.

    python recipes/cifar10_resnet20_cbam.py

Not measured yet.
"""

import dataclasses

from kzoo.train import load_recipe, main

RECIPE = dataclasses.replace(
    load_recipe("cifar10_resnet20"), name="cifar10_resnet20_cbam", model="cifar_resnet20_cbam"
)

if __name__ == "__main__":
    main(RECIPE)
