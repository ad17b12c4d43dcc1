"""ResNet-20 (arXiv:1512.03385, section 4.2) on CIFAR-100 in 200 epochs.

    python recipes/cifar100_resnet20.py

Not run here. chenyaofo/pytorch-cifar-models reports 68.83 %, with settings of chenyaofo/image-classification-codebase
(`conf/cifar10.conf`): 200 epochs, 0.1 for 256 images, a half cosine, Nesterov momentum 0.9 and an L2 penalty of 5e-4.
The penalty is decoupled here, 5e-4 / (1 - 0.9), and spares biases and normalisation; a tenth of the training images
are held out to choose the epoch.
"""

from kzoo.recipe import Published
from kzoo.train import Augment, Data, Optimizer, Recipe, Schedule, main

RECIPE = Recipe(
    name="cifar100_resnet20",
    model="cifar_resnet20",
    data=Data("cifar100"),
    augment=Augment(("flip", "translate")),
    optimizer=Optimizer("sgd", learning_rate=0.1),
    schedule=Schedule(epochs=200, batch_size=256, warmup_epochs=0),
    export=("float32", "int8"),
)
PUBLISHED = Published(0.6883, "chenyaofo/pytorch-cifar-models, cifar100_resnet20")

if __name__ == "__main__":
    main(RECIPE)
