"""Models on pictures: opening files, classifying, segmenting, finding objects; large pictures tile by tile.

opened: a model with what is known of its input and its output, whatever it was opened by: `Opened`.
output: what the numbers of a model mean, as a value: `kzoo.output.Output`.
values: what its last operation gives: softmax, sigmoid or logits.
class names: the texts that classes are called by; labels are integers, the true classes of images.
map: what a model for segmentation gives: numbers for each class and pixel.
tile: a part of a picture as large as the model's input; a tiling is how tiles lie along one axis.
"""

from kzoo.predict.classifier import (
    Classifier,
    Opened,
    as_classifier,
    classify,
    load_keras,
    open_classifier,
    open_model,
)
from kzoo.predict.detector import detect
from kzoo.predict.segmenter import Segmenter, as_segmenter, segment
from kzoo.predict.tiles import predict_tiles

__all__ = [
    "Classifier",
    "Opened",
    "Segmenter",
    "as_classifier",
    "as_segmenter",
    "classify",
    "detect",
    "load_keras",
    "open_classifier",
    "open_model",
    "predict_tiles",
    "segment",
]
