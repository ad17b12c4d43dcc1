"""ResNet-20 with CBAM (arXiv:1807.06521) on CIFAR-10, in about an hour on two CPU cores.

python recipes/cifar10_resnet20_cbam.py
"""

from kzoo.train import Recipe, main

RECIPE = Recipe(
    name="cifar10_resnet20_cbam",
    model="cifar_resnet20_cbam",
    dataset="cifar10",
    epochs=24,
    learning_rate=0.1,
    warmup_epochs=2,
    augmentation=("flip", "translate"),
    export=("float32", "int8"),
)

if __name__ == "__main__":
    main(RECIPE)
