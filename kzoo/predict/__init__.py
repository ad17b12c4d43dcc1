"""Models on pictures: opening files, classifying, segmenting, and pictures larger than a model in tiles."""

from kzoo.predict.classifier import (
    Classifier,
    Opened,
    as_classifier,
    classify,
    load_keras,
    open_classifier,
    open_model,
)
from kzoo.predict.segmenter import Segmenter, as_segmenter, segment
from kzoo.predict.tiles import predict_tiles

__all__ = [
    "Classifier",
    "Opened",
    "Segmenter",
    "as_classifier",
    "as_segmenter",
    "classify",
    "load_keras",
    "open_classifier",
    "open_model",
    "predict_tiles",
    "segment",
]
