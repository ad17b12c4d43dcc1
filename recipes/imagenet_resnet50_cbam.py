"""ResNet-50 with CBAM (arXiv:1807.06521) on ImageNet with the settings of its authors.

    python recipes/imagenet_resnet50_cbam.py

Not run here. The authors report 77.34 % top-1 (Table 4 of the paper), and their released weights have 77.62 %. Their
script (`train_imagenet.py` of Jongchan/attention-module) has the settings of `imagenet_resnet50`, and their command
100 epochs, with a tenth of the learning rate after each 30; what differs is as there, and so are the data.
"""

from kzoo.recipe import Published
from kzoo.train import load_recipe, main

RECIPE = load_recipe("imagenet_resnet50").replace(
    name="imagenet_resnet50_cbam", model="resnet50_cbam", epochs=100, step_epochs=(30, 60, 90)
)
PUBLISHED = Published(0.7734, "arXiv:1807.06521, Table 4")

if __name__ == "__main__":
    main(RECIPE)
