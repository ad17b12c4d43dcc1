"""`kzoo evaluate`: the accuracy or the mean IoU of a file on a dataset."""

from collections.abc import Callable
from typing import Any

from kzoo.class_names import FILES, match_classes
from kzoo.commands.dataset import load
from kzoo.commands.forms import Evaluate
from kzoo.console import make_table, show, show_json
from kzoo.data.split import readable_images
from kzoo.errors import InvalidValueError
from kzoo.escape import terminal
from kzoo.predict.classifier import Opened, open_model
from kzoo.predict.tiles import runner
from kzoo.tasks import task_of_output


def run(form: Evaluate) -> None:
    predict, opened = _open(form)
    shape, output = opened.shape, opened.output
    if len(shape) != 3 or shape[2] != 3:
        raise InvalidValueError(f"{form.model} takes {shape}; datasets give RGB images (height, width, 3)")
    task = task_of_output(output, str(form.model))
    if form.flip and task.name != "segmentation":
        raise InvalidValueError(f"--flip is for segmentation, and {form.model} does {output.task}")
    asked = (form.image_size,) * 2 if isinstance(form.image_size, int) else form.image_size
    if asked and any(own not in (None, side) for own, side in zip(shape, asked, strict=False)):
        raise InvalidValueError(
            f"{form.model} takes images of {shape[0]}×{shape[1]} alone, not {asked[0]}×{asked[1]} (--image-size)"
        )
    height, width, _ = shape
    size = asked if height is None or width is None else (height, width)
    data = load(form, output, size, opened.pixels)
    relabel = match_classes(output, data.classes, str(form.model), form.dataset)
    classes = output.class_names or data.classes
    split, scorer = getattr(data, form.split), task.scorer(output.named(classes))
    with readable_images():
        for examples in split.dataset.batch(task.batch_size).as_numpy_iterator():
            images = examples["image"]
            predicted = predict(images)
            if form.flip:
                predicted = (predicted + predict(images[:, :, ::-1])[:, :, ::-1]) / 2
            scorer.add(predicted, {task.truth: relabel(examples[task.truth])})
    scores = scorer.scores()
    measured: dict[str, Any] = {"file": str(form.model), "dataset": data.name, "split": form.split}
    measured |= {"images": split.size, "scores": {column.key: scores[column.key] for column in task.columns}}
    if task.class_columns:
        measured["classes"] = {
            name: {column.key: scores[column.key][name] for column in task.class_columns} for name in classes
        }
    if form.json:
        show_json(measured)
        return
    tables = [make_table("file", "dataset", "split", "images", *(column.title for column in task.columns))]
    shown = (column.show(scores) for column in task.columns)
    tables[0].add_row(terminal(str(form.model)), terminal(data.name), form.split, str(split.size), *shown)
    if task.class_columns:
        tables.append(make_table("class", *(column.title for column in task.class_columns)))
        for name in classes:
            cells = (column.text(scores[column.key][name]) for column in task.class_columns)
            tables[1].add_row(terminal(name), *cells)
    show(*tables)


def _open(form: Evaluate) -> tuple[Callable, Opened]:
    """What gives the probabilities of a batch, and the opened model."""
    if form.model.suffix not in FILES:
        raise InvalidValueError(f"{form.model} must end in {' or '.join(FILES)}")
    opened = open_model(str(form.model), class_names_file=form.labels, values=form.values, **form.pixel_options)
    opened.output.check_known(str(form.model))
    run = runner(opened.model)
    return lambda images: opened.output.probabilities(run(images)), opened
