"""The dataset that a command brings to a model, read and divided as in the run that made it."""

from pathlib import Path

from kzoo.class_names import FILES
from kzoo.commands.forms import Evaluate, Export
from kzoo.data.split import ImageDataset
from kzoo.images import Pixels
from kzoo.output import Output
from kzoo.recipe import OPTIONS, Data, flags_of, recipe_beside
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
    model, dataset = str(form.model), form.dataset or ""
    task = task_of_output(output, model)
    # a name of the zoo has nothing beside it, whatever lies in this folder
    given = (recipe_beside(Path(model), dataset) if model.endswith(FILES) else {}) | form.mask_options | division

    def known(part: str, kind: type) -> dict:
        return {field: given[flag] for flag, field in flags_of(part, kind).items() if flag in given}

    data = dict(data_dir=form.data_dir, image_size=size, **pixels.to_json(), **known("data", Data))
    options = OPTIONS[task.name]
    return task.load(Data(dataset, **data), options(**known("task", options)), given.get("seed", 0))
