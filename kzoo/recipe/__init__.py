"""The recipe: everything that a training run depends on, as data, and where recipes are found.

part: what belongs together in a recipe, such as `Data`.
flag: the name of a setting without its part, as the command line, reports and `Recipe.replace` have it.
"""

from kzoo.recipe.files import (
    check_flags,
    is_recipe,
    list_recipes,
    load_published,
    load_recipe,
    recipe_beside,
    recipe_dir,
)
from kzoo.recipe.hardware import Hardware
from kzoo.recipe.parts import Augment, Classify, Data, Detect, Optimizer, Schedule, Segment, TaskOptions
from kzoo.recipe.published import Published
from kzoo.recipe.recipe import KINDS, OPTIONS, Recipe, flag_types, flags_of, stored_flags
from kzoo.recipe.source import to_python

__all__ = [
    "KINDS",
    "OPTIONS",
    "Augment",
    "Classify",
    "Data",
    "Detect",
    "Hardware",
    "Optimizer",
    "Published",
    "Recipe",
    "Schedule",
    "Segment",
    "TaskOptions",
    "check_flags",
    "flag_types",
    "flags_of",
    "is_recipe",
    "list_recipes",
    "load_published",
    "load_recipe",
    "recipe_beside",
    "recipe_dir",
    "stored_flags",
    "to_python",
]
