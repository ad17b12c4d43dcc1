"""ResNet-20 on Fashion-MNIST.

python recipes/fashion_mnist_resnet20.py
"""

from kzoo.train import Recipe, main

RECIPE = Recipe(
    name="fashion_mnist_resnet20",
    model="cifar_resnet20",
    dataset="fashion_mnist",
    epochs=8,
    learning_rate=0.1,
    augmentation=("flip", "translate"),
    export=("float32", "int8"),
)

if __name__ == "__main__":
    main(RECIPE)
