"""FCOS on ResNet-50 (arXiv:1904.01355, 2006.09214) on COCO 2017 in 26 epochs, as torchvision trains it.

    python recipes/coco_fcos.py
    python recipes/coco_fcos.py --dataset FOLDER  # with annotations/instances_*.json, train2017 and val2017

Not run here. torchvision reports a box AP of 39.2 (`FCOS_ResNet50_FPN_Weights.COCO_V1`; `references/detection` of
pytorch/vision): SGD with momentum 0.9, 0.01 for 16 images, a tenth of it after 16 and 22 epochs, an L2 penalty of
1e-4, mirror images, the shorter side at 800 pixels and the longer one at 1333 at most, a backbone trained on ImageNet
whose batch normalisation and first stages stay as they are.

What differs: all images are 1024 pixels wide and high with black borders, so that a program has one shape: the longer
side of 640×480 becomes 1024 instead of 1066 pixels; batch normalisation and all stages learn; the penalty spares
biases and normalisation and is decoupled, 1e-4 / (1 - 0.9); momentum is Nesterov's; the arithmetic is bfloat16; and
1 % of the training images are held out to choose the epoch. TFDS's `coco/2017` tests without boxes: its validation
images are what is judged, once, at the end.
"""

from kzoo.recipe import Published
from kzoo.train import Augment, Data, Optimizer, Recipe, Schedule, main

RECIPE = Recipe(
    name="coco_fcos",
    model="fcos",
    backbone="resnet50",
    backbone_weights="tv_in1k",
    data=Data("coco/2017", image_size=1024, resize="pad", validation_fraction=0.01),
    augment=Augment(("flip",)),
    optimizer=Optimizer("sgd", learning_rate=0.01, weight_decay=1e-3),
    schedule=Schedule(epochs=26, batch_size=16, warmup_epochs=0.14, decay="step", step_epochs=(16, 22)),
    precision="mixed_bfloat16",
)
PUBLISHED = Published(0.392, "torchvision, FCOS_ResNet50_FPN_Weights.COCO_V1")

if __name__ == "__main__":
    main(RECIPE)
