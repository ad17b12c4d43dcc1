"""CBAM on handwritten digits, from images to an int8 file.

    python recipes/quickstart.py

Trains `cifar_resnet20_cbam` on the digits that ship with scikit-learn, folds it and exports it.
"""

from kzoo.train import Recipe, main

RECIPE = Recipe(
    name="quickstart",
    model="cifar_resnet20_cbam",
    dataset="digits",
    epochs=14,
    batch_size=32,
    learning_rate=0.1,
    augmentation=("translate", "rotate"),
    export=("float32", "int8"),
)

if __name__ == "__main__":
    main(RECIPE)
