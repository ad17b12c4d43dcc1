"""Inception v3 (arXiv:1512.00567) on ImageNet with its auxiliary head, as Google trained it on TPUs.

    python recipes/imagenet_inception_v3.py

Not run here. Google's guide to Inception v3 on Cloud TPU reports more than 78.1 % top-1 after about 170 epochs. The
code (`models/experimental/inception` of tensorflow/tpu) has these settings: RMSProp with decay 0.9, momentum 0.9 and
an epsilon of 1, 0.165 for each 256 of 1,024 images, times 0.94 after each 3 epochs, an L2 penalty of 4e-5, label
smoothing 0.1, an auxiliary head of weight 0.4, averages of the weights with momentum 0.995, and crops of 5 to 100 %.
The paper has the same optimizer and 0.94 after each 2 epochs, with 0.045 for batches of 32 that do not wait for each
other, and reports 78.8 %.

What differs: colours change as `color` has it; the penalty is decoupled, 4e-5 / (1 - 0.9), as RMSProp with an epsilon
of 1 hardly divides, and spares biases and normalisation; statistics of batch normalisation are estimated anew for the
averages; and 1 % of the training images are held out to choose the epoch. What is judged is the central 299 pixels of
a shorter side of 341. The data are those of `imagenet_resnet50`.
"""

from kzoo.recipe import Published
from kzoo.train import Augment, Classify, Data, Optimizer, Recipe, Schedule, main

RECIPE = Recipe(
    name="imagenet_inception_v3",
    model="inception_v3",
    data=Data("imagenet2012", image_size=299, resize="crop", crop=0.875, validation_fraction=0.01),
    augment=Augment(("resized_crop", "flip", "color"), crop_area=(0.05, 1.0)),
    optimizer=Optimizer("rmsprop", learning_rate=0.66, weight_decay=4e-4, ema=0.995),
    schedule=Schedule(
        epochs=170,
        batch_size=1024,
        warmup_epochs=0,
        decay="step",
        step_epochs=tuple(range(3, 170, 3)),
        step_factor=0.94,
    ),
    task=Classify(label_smoothing=0.1, auxiliary_weight=0.4),
    precision="mixed_bfloat16",
)
PUBLISHED = Published(0.781, "Google, Advanced Guide to Inception v3 (Cloud TPU)")

if __name__ == "__main__":
    main(RECIPE)
