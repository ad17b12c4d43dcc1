"""A feature pyramid on ResNet-18 at half width, on the road scenes of CamVid, from scratch on two CPU cores.

    python recipes/camvid_fpn.py

Needs the folder `camvid` (train, val and test with images, masks and classes.txt; 240×176, 11 classes, 11 is void) in
TFDS_DATA_DIR or ~/tensorflow_datasets; another place is given with --data-dir. The test scenes are of another street
and another light than the others, so the score of the test is far below that of validation.

Measured: mean IoU 0.477 on the 233 test images, 0.475 as an int8 file, 0.632 on validation; 150 epochs in 36 minutes
on two CPU cores that other work shared, seed 0.
"""

from kzoo.train import Recipe, main

RECIPE = Recipe(
    name="camvid_fpn",
    model="fpn",
    backbone="resnet18",
    model_options=dict(
        backbone_options=dict(widths=(32, 64, 128, 256)),
        levels=("p1", "p2", "p3", "p4"),
        channels=64,
        head_width=48,
    ),
    dataset="camvid",
    void=(11,),
    epochs=150,
    batch_size=4,
    crop_size=(128, 160),
    optimizer="adamw",
    learning_rate=1e-3,
    warmup_epochs=2,
    weight_decay=5e-2,
    augmentation=("flip", "scale", "brightness", "contrast", "saturation"),
    dice_weight=1.0,
    precision="mixed_bfloat16",
    export=("float32", "int8"),
)

if __name__ == "__main__":
    main(RECIPE)
