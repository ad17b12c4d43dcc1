"""A U-Net on ResNet-18 at half width, on the road scenes of CamVid, from scratch on two CPU cores.

    python recipes/camvid_unet.py

Needs the folder `camvid` (train, val and test with images, masks and classes.txt; 240×176, 11 classes, 11 is void) in
TFDS_DATA_DIR or ~/tensorflow_datasets; another place is given with --data-dir.
"""

from kzoo.train import Recipe, main

RECIPE = Recipe(
    name="camvid_unet",
    model="unet",
    backbone="resnet18",
    model_options=dict(backbone_options=dict(widths=(32, 64, 128, 256)), decoder_widths=(128, 64, 32, 32, 16)),
    dataset="camvid",
    void=(11,),
    epochs=60,
    batch_size=8,
    optimizer="adamw",
    learning_rate=2e-3,
    warmup_epochs=2,
    weight_decay=1e-2,
    augmentation=("flip", "scale", "brightness", "contrast"),
    dice_weight=1.0,
    class_weights="log",
    export=("float32", "int8"),
)

if __name__ == "__main__":
    main(RECIPE)
