"""The dataset that a command brings to a model, read and divided as in the run that made it."""

from pathlib import Path
from typing import Any

import numpy as np

from kzoo.class_names import FILES
from kzoo.commands.forms import ALL, Evaluate, Export
from kzoo.data.split import ImageDataset
from kzoo.images import Pixels
from kzoo.output import Output
from kzoo.recipe import OPTIONS, Data, TaskOptions, flags_of, recipe_beside
from kzoo.tasks import task_of_output


def load(
    form: Evaluate | Export, output: Output, size: tuple[int, int] | None, pixels: Pixels, **division
) -> ImageDataset:
    """Loads the dataset of `form`.

    Args:
        form: options of the command; what they leave open is as in the report beside the model's file.
        output: output of the model.
        size: (height, width) that images are resized to; None leaves them as they are.
        pixels: way from a picture to pixels.
        **division: settings of a recipe that divide the dataset, which go before those of the report.

    Raises:
        DatasetError: no such dataset, or none for the model's task.
    """
    divided = not isinstance(form, Evaluate) or form.split != ALL
    return task_of_output(output, str(form.model)).load(*_told(form, output, size, pixels, division), divided)


def training_images(
    form: Export, output: Output, size: tuple[int, int] | None, pixels: Pixels, count: int
) -> np.ndarray:
    """Some of the training images of the dataset of `form`, (count, height, width, 3), whatever is known of them.

    Args and raises as `load`.
    """
    data, _, _ = _told(form, output, size, pixels, {})
    return task_of_output(output, str(form.model)).images(data, count)


def _told(
    form: Evaluate | Export, output: Output, size: tuple[int, int] | None, pixels: Pixels, division: dict[str, Any]
) -> tuple[Data, TaskOptions, int]:
    """Dataset, options of the task, and seed."""
    model, dataset = str(form.model), form.dataset or ""
    # a name of the zoo has nothing beside it, whatever lies in this folder
    given = (recipe_beside(Path(model), dataset) if model.endswith(FILES) else {}) | form.truth_options | division

    def known(part: str, kind: type) -> dict:
        return {field: given[flag] for flag, field in flags_of(part, kind).items() if flag in given}

    data = dict(data_dir=form.data_dir, image_size=size, **pixels.to_json(), **known("data", Data))
    options = OPTIONS[task_of_output(output, model).name]
    return Data(dataset, **data), options(**known("task", options)), given.get("seed", 0)
