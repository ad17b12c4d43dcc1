"""FCOS on a narrow ResNet-18, on the blood cells of BCCD, from scratch on two CPU cores.

    python recipes/bccd_fcos.py

Needs the folder `bccd` (JPEGImages, Annotations and ImageSets of BCCD_Dataset: 205, 87 and 72 pictures of 640×480,
three classes) in TFDS_DATA_DIR or ~/tensorflow_datasets; another place is given with --data-dir. Cells have no up, so
that pictures are mirrored both ways; their sides are 30 to 240 pixels, for which P3 to P5 of half the picture suffice.
"""

from kzoo.train import Augment, Data, Detect, Optimizer, Recipe, Schedule, main

RECIPE = Recipe(
    name="bccd_fcos",
    model="fcos",
    backbone="resnet18",
    model_options=dict(
        backbone_options=dict(widths=(32, 64, 128, 256)), channels=64, extra_levels=0, head_depth=2, head_norm="batch"
    ),
    data=Data("bccd", image_size=(240, 320)),
    augment=Augment(("scale", "flip", "flip_vertical", "color")),
    optimizer=Optimizer("adamw", learning_rate=2e-3, weight_decay=5e-2),
    schedule=Schedule(epochs=100, batch_size=8, warmup_epochs=2),
    task=Detect(),
    export=("float32", "int8"),
)

if __name__ == "__main__":
    main(RECIPE)
