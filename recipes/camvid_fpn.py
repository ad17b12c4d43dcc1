"""A feature pyramid on ResNet-18 at half width, on the road scenes of CamVid, from scratch on two CPU cores.

    python recipes/camvid_fpn.py

Needs the folder `camvid` (train, val and test with images, masks and classes.txt; 240×176, 11 classes, 11 is void) in
TFDS_DATA_DIR or ~/tensorflow_datasets; another place is given with --data-dir. The test scenes are of another street
and another light than the others, so the score of the test is far below that of validation.

Measured on the 233 test images, seed 0: mean IoU 0.492, and 0.509 where each image is predicted together with its
mirror image (`kzoo evaluate saved_models/camvid_fpn/model.keras --dataset camvid --flip`); the int8 file 0.493 and
0.509; 0.626 on validation. 300 epochs in 118 minutes on two CPU cores that other work shared. SegNet is reported at
0.464 and FC-DenseNet103 at 0.669 from these images at 480×360.
"""

from kzoo.train import Augment, Data, Optimizer, Recipe, Schedule, Segment, main

RECIPE = Recipe(
    name="camvid_fpn",
    model="fpn",
    backbone="resnet18",
    model_options=dict(
        backbone_options=dict(widths=(32, 64, 128, 256)),
        levels=("p1", "p2", "p3", "p4", "p5"),
        channels=64,
        head_width=48,
    ),
    data=Data("camvid"),
    augment=Augment(("flip", "scale", "brightness", "contrast", "saturation")),
    optimizer=Optimizer("adamw", learning_rate=1e-3, weight_decay=5e-2),
    schedule=Schedule(epochs=300, batch_size=4, warmup_epochs=2),
    task=Segment(void=(11,), crop_size=(144, 192), dice_weight=1.0, class_weights="log"),
    precision="mixed_bfloat16",
    export=("float32", "int8"),
)

if __name__ == "__main__":
    main(RECIPE)
