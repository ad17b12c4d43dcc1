"""The recipe of `camvid_unet` with CBAM (arXiv:1807.06521) in every block of the encoder.

    python recipes/camvid_unet_cbam.py

Needs the data of `camvid_unet`.
"""

import dataclasses

from kzoo.train import load_recipe, main

RECIPE = dataclasses.replace(load_recipe("camvid_unet"), name="camvid_unet_cbam", backbone="resnet18_cbam")

if __name__ == "__main__":
    main(RECIPE)
