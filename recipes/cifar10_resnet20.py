"""ResNet-20 (arXiv:1512.03385, section 4.2) on CIFAR-10, in an hour on two CPU cores.

    python recipes/cifar10_resnet20.py

Measured: 89.71 % test accuracy, 89.59 % as an int8 file; 62 minutes on two CPU cores that other work shared, seed 0.
The paper reports 91.25 % after 64,000 steps; these are 8,424. The files are in
saved_models/cifar10_resnet20.
"""

from kzoo.train import Augment, Data, Optimizer, Recipe, Schedule, main

RECIPE = Recipe(
    name="cifar10_resnet20",
    model="cifar_resnet20",
    data=Data("cifar10"),
    augment=Augment(("flip", "translate")),
    optimizer=Optimizer("sgd", learning_rate=0.1),
    schedule=Schedule(epochs=24, warmup_epochs=2),
    export=("float32", "int8"),
)

if __name__ == "__main__":
    main(RECIPE)
