"""The one way from a file to pixels: finding pictures, reading them, and fitting them to a model's input.

`Pixels` is the value that travels: recipes, reports and cards carry it, and training, validation, evaluation,
prediction and calibration ask it. No other part of kzoo decodes, turns or resizes a picture.

picture: a file, or what Pillow decodes of it, of any size.
image: the array that a model takes: RGB or grey, 0 to 255, (height, width, channels).
`Pixels`: how a picture becomes an image, as a value: `resize`, `crop`, `interpolation`.
`RandomCrop`: how a random part of a picture becomes an image to train on.
mask: a picture whose numbers are classes.
overlay: a picture with the classes of its pixels drawn over it.
"""

from kzoo.images.crops import RandomCrop
from kzoo.images.finding import FORMATS, SUFFIXES, Found, find_in, find_pictures, is_hidden, is_picture, list_folder
from kzoo.images.pixels import INTERPOLATION, RESIZE, STRETCHED, Interpolation, PixelChanges, Pixels, Resize
from kzoo.images.reading import MODES, MOST_PIXELS, check_header, read_numbers, read_picture, read_size

__all__ = [
    "FORMATS",
    "INTERPOLATION",
    "MODES",
    "MOST_PIXELS",
    "RESIZE",
    "STRETCHED",
    "SUFFIXES",
    "Found",
    "Interpolation",
    "PixelChanges",
    "Pixels",
    "RandomCrop",
    "Resize",
    "check_header",
    "find_in",
    "find_pictures",
    "is_hidden",
    "is_picture",
    "list_folder",
    "read_numbers",
    "read_picture",
    "read_size",
]
