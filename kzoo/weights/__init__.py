"""Loading weights: where public checkpoints are, how foreign names map, and a strict loader.

checkpoint: a public file of weights with a name, a licence and the images that it wants: a row of `checkpoints.csv`.
spec: that row as a value, `WeightsSpec`.
adapted: an array that was changed for other channels, sizes or classes, by a rule that leaves no doubt.
initialised: a weight that keeps its random value, and is listed in the report.
new: a weight of attention that the file's network does not have; the model starts as that network.
weights report: what a load of weights did, `WeightsReport`.
"""

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
