"""ResNet-20 (arXiv:1512.03385, section 4.2) on CIFAR-10, in about an hour on two CPU cores.

python recipes/cifar10_resnet20.py
"""

from kzoo.train import Recipe, main

RECIPE = Recipe(
    name="cifar10_resnet20",
    model="cifar_resnet20",
    dataset="cifar10",
    epochs=24,
    learning_rate=0.1,
    warmup_epochs=2,
    augmentation=("flip", "translate"),
    export=("float32", "int8"),
)

if __name__ == "__main__":
    main(RECIPE)
