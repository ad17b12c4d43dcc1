"""RetinaNet on ResNet-50 (arXiv:1708.02002) on COCO 2017 in 26 epochs, as torchvision trains it.

    python recipes/coco_retinanet.py
    python recipes/coco_retinanet.py --dataset FOLDER  # with annotations/instances_*.json, train2017 and val2017

Not run here. torchvision reports a box AP of 36.4 (`RetinaNet_ResNet50_FPN_Weights.COCO_V1`; `references/detection` of
pytorch/vision) with the settings that `coco_fcos` has, and an L1 loss of boxes. What differs is what differs there.
"""

from kzoo.recipe import Published
from kzoo.train import Augment, Data, Optimizer, Recipe, Schedule, main

RECIPE = Recipe(
    name="coco_retinanet",
    model="retinanet",
    backbone="resnet50",
    backbone_weights="tv_in1k",
    data=Data("coco/2017", image_size=1024, resize="pad", validation_fraction=0.01),
    augment=Augment(("flip",)),
    optimizer=Optimizer("sgd", learning_rate=0.01, weight_decay=1e-3),
    schedule=Schedule(epochs=26, batch_size=16, warmup_epochs=0.14, decay="step", step_epochs=(16, 22)),
    precision="mixed_bfloat16",
)
PUBLISHED = Published(0.364, "torchvision, RetinaNet_ResNet50_FPN_Weights.COCO_V1")

if __name__ == "__main__":
    main(RECIPE)
