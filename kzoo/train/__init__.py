"""Training: declarative recipes, data by name, a resumable loop, and reports of what came out."""

from kzoo.recipe import Augment, Classify, Data, Detect, Hardware, Optimizer, Recipe, Schedule, Segment, load_recipe
from kzoo.train.cli import main
from kzoo.train.loop import train

__all__ = [
    "Augment",
    "Classify",
    "Data",
    "Detect",
    "Hardware",
    "Optimizer",
    "Recipe",
    "Schedule",
    "Segment",
    "load_recipe",
    "main",
    "train",
]
