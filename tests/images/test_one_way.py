"""No part of kzoo but the one way of `kzoo.images` decodes, turns or resizes a picture."""

import ast
from pathlib import Path

import pytest

import kzoo

PACKAGE = Path(kzoo.__file__).parent
# names that read, turn or resize pictures, as a function, a method, an attribute or an import
FORBIDDEN = {
    *("thumbnail", "resize_with_pad", "resize_with_crop_or_pad", "smart_resize", "rot90", "exif_transpose", "getexif"),
    *("ImageOps", "TRANSPOSE", "TRANSVERSE", "ROTATE_90", "ROTATE_180", "ROTATE_270"),
    *("decode_image", "decode_jpeg", "decode_png", "decode_gif", "decode_bmp", "decode_and_crop_jpeg", "read_file"),
    *("load_img", "img_to_array", "array_to_img", "image_dataset_from_directory", "ImageDataGenerator", "imread"),
    *("flow_from_directory", "cv2", "imageio", "skimage", "torchvision", "Resizing", "CenterCrop"),
}
CALLED = {"resize", "rotate", "zoom"}  # of which only calls count: recipes have a field of the name
WAY = ("images/crops.py", "images/finding.py", "images/pixels.py", "images/reading.py")
# file, name -> how often, and what for; anything else is a second way from a file to pixels
ALLOWED = {
    ("edge/quantize.py", "resize"): (1, "repeats images until a batch is full: np.resize"),
    ("edge/source.py", "resize"): (1, "repeats images until a batch is full: np.resize"),
    ("images/boxes.py", "resize"): (1, "enlarges a picture to be looked at"),
    ("images/overlay.py", "resize"): (4, "enlarges a picture and its finished mask or heat map to be looked at"),
    ("explain/drawing.py", "resize"): (2, "enlarges a picture and its finished map to be looked at"),
    ("explain/picture.py", "resize"): (1, "a picture to be looked at"),
    ("explain/perturbation.py", "resize"): (1, "enlarges masks and channels, no pictures"),
    ("page/examples.py", "thumbnail"): (1, "shrinks an example before it is stored; what is stored is then read"),
    ("report/mistakes.py", "thumbnail"): (1, "shrinks a picture that the model has seen to be looked at"),
    ("predict/segmenter.py", "resize"): (1, "brings probabilities to the size of the picture"),
    ("data/boxes.py", "resize"): (1, "random parts of images that are in memory, at the size of training"),
    ("data/elastic.py", "resize"): (1, "a field of displacements, no picture"),
}


def uses(source: str) -> list[str]:
    """Every forbidden name in a file, and `Image.open` as `open`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLED:
            found.append(node.func.attr)
        if isinstance(node, ast.Attribute):
            opens = node.attr == "open" and isinstance(node.value, ast.Name) and node.value.id in ("Image", "PIL")
            found += ["open"] if opens else [node.attr] if node.attr in FORBIDDEN else []
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += [part for name in names for part in name.split(".") if part in FORBIDDEN]
            found += ["open"] if names[0] == "PIL.Image" and "open" in names else []
    return found


def test_pictures_are_decoded_turned_and_resized_in_one_place():
    counts = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(("layers/", "models/")) and name not in WAY:  # layers and models resize feature maps
            for used in uses(path.read_text(encoding="utf-8")):
                counts[name, used] = counts.get((name, used), 0) + 1
    assert counts == {place: count for place, (count, _) in ALLOWED.items()}


@pytest.mark.parametrize(
    "source",
    [
        "tf.image.resize(x, (8, 8))",
        "from PIL import ImageOps",
        "from PIL import Image\nImage.open('x.png')",
        "from PIL.Image import open",
        "keras.utils.image_dataset_from_directory('x')",
        "from keras.utils import load_img",
        "import cv2",
        "picture.resize((8, 8))",
        "tf.io.decode_jpeg(content)",
        "plt.imread(path)",
        "keras.layers.Resizing(8, 8)",
    ],
)
def test_another_way_would_be_seen(source):
    assert uses(source)
