"""ResNet-50 (arXiv:1512.03385) on ImageNet in 90 epochs, as torchvision trains it.

    python recipes/imagenet_resnet50.py
    python recipes/imagenet_resnet50.py --dataset FOLDER  # with train/CLASS/* and val/CLASS/*

Not run here. torchvision reports 76.13 % top-1 (`ResNet50_Weights.IMAGENET1K_V1`; `references/classification` of
pytorch/vision, whose script has these settings as its defaults): SGD with momentum 0.9, 0.1 for 256 images, a tenth of
it after 30 and 60 epochs, an L2 penalty of 1e-4; crops of 8 to 100 % resized to 224, flips; judged on the central 224
pixels of a shorter side of 256.

What differs: the penalty spares biases and normalisation; momentum is Nesterov's; the arithmetic is bfloat16; each
batch is normalised as a whole, not in parts of 32; and 1 % of the training images are held out to choose the epoch.
The penalty is decoupled here, 1e-4 / (1 - 0.9). The test of TFDS's `imagenet2012` has no labels: its validation images
are what is judged, once, at the end.
"""

from kzoo.recipe import Published
from kzoo.train import Augment, Data, Optimizer, Recipe, Schedule, main

RECIPE = Recipe(
    name="imagenet_resnet50",
    model="resnet50",
    data=Data("imagenet2012", image_size=224, resize="crop", crop=0.875, validation_fraction=0.01),
    augment=Augment(("resized_crop", "flip")),
    optimizer=Optimizer("sgd", learning_rate=0.1, weight_decay=1e-3),
    schedule=Schedule(epochs=90, batch_size=256, warmup_epochs=0, decay="step", step_epochs=(30, 60)),
    precision="mixed_bfloat16",
)
PUBLISHED = Published(0.7613, "torchvision, ResNet50_Weights.IMAGENET1K_V1")

if __name__ == "__main__":
    main(RECIPE)
