"""Loading weights: where public checkpoints are, how foreign names map, and a strict loader."""

from kzoo.weights.load import WeightsReport, load_backbone, load_weights
from kzoo.weights.specs import DEFAULT, WEIGHTS, WeightsSpec, fetch_source, known, preprocessing_of, resolve

__all__ = [
    "DEFAULT",
    "WEIGHTS",
    "WeightsReport",
    "WeightsSpec",
    "fetch_source",
    "known",
    "load_backbone",
    "load_weights",
    "preprocessing_of",
    "resolve",
]
