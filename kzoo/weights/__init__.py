"""Loading weights: where public checkpoints are, how foreign names map, and a strict loader."""

from kzoo.weights.load import WeightsReport, load_weights
from kzoo.weights.specs import WEIGHTS, WeightsSpec, known, resolve

__all__ = ["WEIGHTS", "WeightsReport", "WeightsSpec", "known", "load_weights", "resolve"]
