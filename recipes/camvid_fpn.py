"""The recipe of `camvid_unet` with a feature pyramid (arXiv:1612.03144) on the same backbone.

    python recipes/camvid_fpn.py

Needs the data of `camvid_unet`.
"""

import dataclasses

from kzoo.train import load_recipe, main

RECIPE = dataclasses.replace(
    load_recipe("camvid_unet"),
    name="camvid_fpn",
    model="fpn",
    model_options=dict(backbone_options=dict(widths=(32, 64, 128, 256)), channels=96, head_width=64),
)

if __name__ == "__main__":
    main(RECIPE)
