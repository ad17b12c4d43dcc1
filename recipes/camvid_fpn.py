"""A feature pyramid on ResNet-18 at half width, on the road scenes of CamVid, from scratch on two CPU cores.

    python recipes/camvid_fpn.py

Needs the folder `camvid` (train, val and test with images, masks and classes.txt; 240×176, 11 classes, 11 is void) in
TFDS_DATA_DIR or ~/tensorflow_datasets; another place is given with --data-dir. The test scenes are of another street
and another light than the others, so the score of the test is far below that of validation.

Measured: mean IoU 0.438 on the 233 test images, 0.438 as an int8 file (0.451 with `kzoo evaluate --flip`), 0.599 on
validation; 29 minutes of training on two CPU cores that other work shared, seed 0. That was before the layers of the
augmentation drew numbers of their own; the run has not been repeated since.
"""

from kzoo.train import Recipe, main

RECIPE = Recipe(
    name="camvid_fpn",
    model="fpn",
    backbone="resnet18",
    model_options=dict(backbone_options=dict(widths=(32, 64, 128, 256)), channels=128, head_width=64),
    dataset="camvid",
    void=(11,),
    epochs=40,
    batch_size=8,
    optimizer="adamw",
    learning_rate=2e-3,
    warmup_epochs=2,
    weight_decay=1e-2,
    augmentation=("flip", "scale", "brightness", "contrast"),
    dice_weight=1.0,
    class_weights="log",
    precision="mixed_bfloat16",
    export=("float32", "int8"),
)

if __name__ == "__main__":
    main(RECIPE)
