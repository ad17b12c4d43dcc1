"""The one way from a file to pixels: finding pictures, reading them, and fitting them to a model's input.

`Pixels` is the value that travels: recipes, reports and cards carry it, and training, validation, evaluation,
prediction and calibration ask it. No other part of kzoo decodes, turns or resizes a picture.
"""

from kzoo.images.finding import FORMATS, SUFFIXES, find_images
from kzoo.images.pixels import INTERPOLATION, RESIZE, Pixels
from kzoo.images.reading import MODES, read_picture

__all__ = ["FORMATS", "INTERPOLATION", "MODES", "RESIZE", "SUFFIXES", "Pixels", "find_images", "read_picture"]
