"""`kzoo recipes`: the recipes of the tree, from their catalogue, which needs no Keras."""

from kzoo.commands.forms import Recipes
from kzoo.commands.recipe_catalogue import ListedRecipe, read_recipes
from kzoo.console import make_table, show, show_json
from kzoo.errors import UnknownNameError, counted, did_you_mean

NAMES = {"classification": "", "segmentation": "mean IoU ", "detection": "AP "}  # of a score, by task
MINUTE = 60  # seconds


def run(form: Recipes) -> None:
    recipes = read_recipes()
    found = [recipe for recipe in recipes if recipe.matches(form.pattern)]
    if not found:
        meant = did_you_mean(form.pattern, [recipe.name for recipe in recipes])
        raise UnknownNameError(f"no recipe matches {form.pattern!r}{meant}; kzoo recipes shows all")
    if form.json:
        show_json([recipe.to_json() for recipe in found])
        return
    table = make_table(
        *(
            "recipe",
            "model",
            "dataset",
            "epochs",
            "batch",
            "parameters",
            "GFLOP a step",
            "run in saved_models",
            "test score",
        )
    )
    for recipe in found:
        table.add_row(
            recipe.name,
            recipe.model,
            recipe.dataset,
            str(recipe.epochs),
            str(recipe.batch_size),
            f"{recipe.parameters / 1e6:.2f} M",
            f"{recipe.step_gflops:,.0f}",
            _time(recipe),
            _score(recipe),
        )
    show(table, counted(len(found), "recipe"))


def _time(recipe: ListedRecipe) -> str:
    """How long its run took, and of how many epochs it was where these are others."""
    if recipe.measured_seconds is None:
        return "none"
    others = recipe.measured_epochs is not None and recipe.measured_epochs != recipe.epochs
    epochs = f" for {counted(recipe.measured_epochs or 0, 'epoch')}" if others else ""
    return f"{counted(round(recipe.measured_seconds / MINUTE), 'minute')}{epochs}"


def _score(recipe: ListedRecipe) -> str:
    """What was measured, or what others report."""
    name = NAMES[recipe.task]
    if recipe.measured is not None:
        return f"{name}{recipe.measured:.2%}"
    if recipe.published is not None:
        return f"{name}{recipe.published:.2%} published: {recipe.source}"
    return "-"
