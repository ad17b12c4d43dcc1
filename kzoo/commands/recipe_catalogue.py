"""The catalogue of recipes: what `kzoo recipes` tells, kept in a file so that nothing is built for it.

`python -m kzoo.commands.recipe_catalogue` makes the file anew, and tests/commands/test_recipe_catalogue.py says when
that is due.
"""

import dataclasses
import fnmatch
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kzoo.reading import read_json

if TYPE_CHECKING:
    from kzoo.recipe import Recipe

PATH = Path(__file__).with_name("recipes.json")
SAVED_MODELS = Path(__file__).resolve().parents[2] / "saved_models"
SCORES = {"classification": "accuracy", "segmentation": "mean_iou", "detection": "ap"}  # of a report, by task


@dataclasses.dataclass(frozen=True)
class ListedRecipe:
    """A recipe in the catalogue.

    Attributes:
        name: name that `kzoo train` takes.
        model: model that it trains.
        task: "classification", "segmentation" or "detection".
        dataset: dataset that it trains on.
        epochs: passes over the training images.
        batch_size: images of a step.
        parameters: number of trainable parameters.
        step_gflops: operations of a training step, in billions: three forward passes of two for each multiply-add.
        measured: top-1 accuracy, mean IoU or AP on test images, of its run in saved_models; None where there is none.
        measured_epochs: epochs of that run.
        measured_seconds: seconds of training of that run.
        published: the same score that others report for its settings; None where it names none.
        source: who reports it.
    """

    name: str
    model: str
    task: str
    dataset: str
    epochs: int
    batch_size: int
    parameters: int
    step_gflops: float
    measured: float | None
    measured_epochs: int | None
    measured_seconds: int | None
    published: float | None
    source: str | None

    def matches(self, pattern: str) -> bool:
        """Whether its name matches a shell-style pattern."""
        return fnmatch.fnmatchcase(self.name, pattern)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_recipes() -> list[ListedRecipe]:
    """The recipes of the tree, by name."""
    return [ListedRecipe(**row) for row in json.loads(PATH.read_text(encoding="utf-8"))]


def list_of(name: str) -> ListedRecipe:
    """What the catalogue has to say of a recipe, from the recipe, its model and its report."""
    import keras

    from kzoo.graph import count_macs
    from kzoo.recipe import load_published, load_recipe
    from kzoo.registry import lookup
    from kzoo.zoo import build, count_parameters

    recipe, published, report = load_recipe(name), load_published(name), _reports().get(name, {})
    shape, classes = _shape(recipe), _classes(recipe)
    with keras.StatelessScope(initialize_variables=False):  # sizes need no values
        model = build(recipe.model, input_shape=(*shape, 3), num_classes=classes, **recipe.build_options)
    task = lookup(recipe.model).task
    return ListedRecipe(
        name=name,
        model=recipe.model,
        task=task,
        dataset=recipe.data.dataset,
        epochs=recipe.schedule.epochs,
        batch_size=recipe.schedule.batch_size,
        parameters=count_parameters(model),
        step_gflops=float(f"{6e-9 * count_macs(model) * recipe.schedule.batch_size:.4g}"),
        measured=report["models"]["keras"][SCORES[task]] if report else None,
        measured_epochs=_flags(report)["epochs"] if report else None,
        measured_seconds=report["training_seconds"] if report else None,
        published=published.score if published else None,
        source=published.source if published else None,
    )


def _reports() -> dict[str, dict[str, Any]]:
    """Name of a recipe -> report of its run."""
    reports = [read_json(path) for path in SAVED_MODELS.glob("*/report.json")]
    return {report["recipe"]["name"]: report for report in reports}


def _flags(report: dict[str, Any]) -> dict[str, Any]:
    from kzoo.recipe import stored_flags

    return stored_flags(report["recipe"])


def _shape(recipe: "Recipe") -> tuple[int, int]:
    """Height and width of the images that are trained on."""
    from kzoo.planning.sizes import SIZES

    known = SIZES.get(recipe.data.dataset)
    shape = recipe.crop_shape or recipe.data.shape or (known and known.side and (known.side, known.side))
    assert shape, f"{recipe.name}: kzoo.planning.sizes must tell the size of the images of {recipe.data.dataset}"
    return shape


def _classes(recipe: "Recipe") -> int | None:
    """The number of classes, of a table, of the recipe, or of a run on the same dataset; else None."""
    from kzoo.planning.sizes import SIZES

    if recipe.data.dataset in SIZES:
        return SIZES[recipe.data.dataset].classes
    reports = [report for report in _reports().values() if _flags(report)["dataset"] == recipe.data.dataset]
    return len(getattr(recipe.task, "class_names", ())) or (len(reports[0]["dataset"]["classes"]) if reports else None)


def main() -> None:
    """Writes the catalogue."""
    from rich.progress import track

    from kzoo.files import write_text
    from kzoo.recipe import list_recipes

    rows = [json.dumps(list_of(name).to_json(), ensure_ascii=False) for name in track(list_recipes())]
    write_text(PATH, "[\n" + ",\n".join(rows) + "\n]\n")


if __name__ == "__main__":
    main()
