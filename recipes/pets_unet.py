"""A U-Net on ResNet-18 at half width that cuts out cats and dogs: Oxford-IIIT Pet, 3,680 training images.

    python recipes/pets_unet.py

TFDS downloads `oxford_iiit_pet` where there is a network. Its masks say 1 for the pet, 2 for the background and 3 for
the outline between them, which is a class of its own here.
"""

from kzoo.train import Augment, Data, Optimizer, Recipe, Schedule, Segment, main

RECIPE = Recipe(
    name="pets_unet",
    model="unet",
    backbone="resnet18",
    model_options=dict(backbone_options=dict(widths=(32, 64, 128, 256)), decoder_widths=(128, 64, 32, 32, 16)),
    data=Data("oxford_iiit_pet", image_size=160),
    augment=Augment(("flip", "scale", "brightness", "contrast")),
    optimizer=Optimizer("adamw", learning_rate=2e-3, weight_decay=1e-2),
    schedule=Schedule(epochs=30, batch_size=16),
    task=Segment(class_names=("pet", "background", "outline"), mask_values=(1, 2, 3), dice_weight=1.0),
    export=("float32", "int8"),
)

if __name__ == "__main__":
    main(RECIPE)
