"""The recipe of `camvid_fpn` with CBAM (arXiv:1807.06521) in every block of the backbone.

    python recipes/camvid_fpn_cbam.py

Needs the data of `camvid_fpn`. With 24 epochs each (`--epochs 24`): mean IoU on the test images 0.404, against 0.391
of `camvid_fpn`; pixel accuracy 76.8 % against 75.2 %; one seed.
"""

from kzoo.train import load_recipe, main

RECIPE = load_recipe("camvid_fpn").replace(name="camvid_fpn_cbam", backbone="resnet18_cbam")

if __name__ == "__main__":
    main(RECIPE)
