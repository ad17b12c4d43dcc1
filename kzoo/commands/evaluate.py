"""`kzoo evaluate`: how good a file is on a dataset, in numbers, tables and pictures."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.class_names import FILES, match_classes
from kzoo.commands.dataset import load
from kzoo.commands.forms import Evaluate
from kzoo.console import as_json, make_table, show, show_json
from kzoo.data.split import Example, ImageDataset, Split
from kzoo.errors import InvalidValueError, OutputError
from kzoo.escape import markdown, terminal
from kzoo.files import ensure_writable, refuse_unwritable, write_text
from kzoo.output import Output
from kzoo.predict.classifier import Opened, open_model
from kzoo.predict.detector import run_detector
from kzoo.predict.tiles import runner
from kzoo.recipe import recipe_beside
from kzoo.report.diagrams import write_table
from kzoo.tasks import Column, Evaluated, Task, task_of_output
from kzoo.tasks.tables import classes_table, details_table, pictures, shown_classes, temperature_line, told_details

_log = logging.getLogger("kzoo")


def run(form: Evaluate) -> None:
    _check_output(form)
    predict, opened = _open(form)
    shape, output = opened.shape, opened.output
    if len(shape) != 3 or shape[2] != 3:
        raise InvalidValueError(f"{form.model} takes {shape}; datasets give RGB images (height, width, 3)")
    task = task_of_output(output, str(form.model))
    _check_task(form, task, output)
    asked = (form.image_size,) * 2 if isinstance(form.image_size, int) else form.image_size
    if asked and any(own not in (None, side) for own, side in zip(shape, asked, strict=False)):
        raise InvalidValueError(
            f"{form.model} takes images of {shape[0]}×{shape[1]} alone, not {asked[0]}×{asked[1]} (--image-size)"
        )
    height, width, _ = shape
    size = asked if height is None or width is None else (height, width)
    data = load(form, output, size, opened.pixels, **form.division_options)
    relabel = match_classes(output, data.classes, str(form.model), form.dataset)
    classes = output.class_names or data.classes
    split: Split = getattr(data, form.split)
    everything = data.train.size + data.validation.size + data.test.size
    _say_which(form, data, f"{split.size} of its {everything} images")
    if form.output is not None:
        ensure_writable(form.output)

    def relabelled(examples: Example) -> Example:
        return examples | {task.truth: relabel(examples[task.truth])}

    def judged(images: Split) -> Any:
        scorer = task.scorer(output.named(classes), opened.pixels)
        for examples in images.batches(task.batch_size):
            scorer.add(predict(examples["image"]), relabelled(examples))
        return scorer

    scorer = judged(split)
    scores = scorer.scores()
    measured: dict[str, Any] = {"file": str(form.model), "dataset": data.name, "split": form.split}
    measured |= {"images": split.size, "of": everything}
    measured["scores"] = {column.key: scores[column.key] for column in _columns(task)}
    if form.temperature:
        measured["temperature"] = scorer.with_temperature(judged(data.validation))
        if measured["temperature"] is None:
            _log.warning(f"all {data.validation.size} validation images are right: no temperature can be fitted")
    if task.class_columns:
        measured["classes"] = {
            name: {column.key: scores[column.key][name] for column in task.class_columns} for name in scorer.classes
        }
    if form.output is not None:
        evaluated = Evaluated(
            file=str(form.model),
            dataset=data.name,
            split=form.split,
            files=split.files,
            examples=lambda numbers: relabelled(split.pick(numbers).arrays()),
            predict=predict,
            scorer=scorer,
        )
        captions = task.draw(evaluated, form.output)
        _write(form.output, task, measured, scores, captions)
    if form.json:
        show_json(measured)
    else:
        _show(task, measured, scores)


def _check_output(form: Evaluate) -> None:
    """Refuses a folder that cannot be written, or is that of a run, whose pictures would be written over."""
    if form.output is None:
        return
    refuse_unwritable(form.output)
    if (form.output / "report.json").exists():
        raise OutputError(f"{form.output} holds the report of a run; give --output another folder")


def _say_which(form: Evaluate, data: ImageDataset, images: str) -> None:
    """Warns of a part that the user may not mean: one that kzoo drew, or one that a run trained on."""
    of_run = bool(recipe_beside(form.model, form.dataset))
    if form.split == "all" and of_run:
        _log.warning(f"{form.model} was trained on some of the images of --split all")
    elif form.split != "all" and not (data.has_test or of_run or form.division_options):
        _log.warning(
            f"{data.name} has no test images of its own: these are {images}, the {form.split} part as kzoo "
            "train divides it; --split all takes everything. For a model that was trained on them and has no "
            "report.json beside it, give --test-fraction, --validation-fraction, --group-by and --seed of its run"
        )


def _check_task(form: Evaluate, task: Task, output: Output) -> None:
    """Refuses what the task of the model does not have, and a model that no dataset can judge."""
    if form.flip and task.name != "segmentation":
        raise InvalidValueError(f"--flip is for segmentation, and {form.model} does {output.task}")
    if form.temperature and not task.calibrates:
        kind = "gives several labels" if output.multi_label else f"does {output.task}"
        raise InvalidValueError(f"--temperature is for one class for each image, and {form.model} {kind}")
    if form.temperature and form.split in ("validation", "all"):
        raise InvalidValueError("--temperature is fitted to the validation images; judge it on --split test or train")


def _open(form: Evaluate) -> tuple[Callable[[np.ndarray], Any], Opened]:
    """What gives the probabilities of a batch, or boxes and scores, and the opened model."""
    if form.model.suffix not in FILES:
        raise InvalidValueError(f"{form.model} must end in {' or '.join(FILES)}")
    opened = open_model(str(form.model), class_names_file=form.labels, values=form.values, **form.pixel_options)
    opened.output.check_known(str(form.model))
    if opened.output.detects:
        return partial(run_detector, opened.model), opened
    run = runner(opened.model)

    def predict(images: np.ndarray) -> np.ndarray:
        found = opened.output.probabilities(run(images))
        if not form.flip:
            return found
        return (found + opened.output.probabilities(run(images[:, :, ::-1]))[:, :, ::-1]) / 2

    return predict, opened


def _columns(task: Task) -> Sequence[Column]:
    return (*task.columns, *task.details)


def _show(task: Task, measured: dict[str, Any], scores: dict[str, Any]) -> None:
    """Tables of the scores, of further ones and of classes, and a line on the temperature."""
    parts: list = [make_table("file", "dataset", "split", "images", *(column.title for column in task.columns))]
    about = (terminal(measured["file"]), terminal(measured["dataset"]), measured["split"], _images(measured))
    parts[0].add_row(*about, *(column.show(scores) for column in task.columns))
    if details := told_details(task, [scores]):
        parts.append(make_table("score", "value"))
        for column in details:
            parts[-1].add_row(column.title, column.show(scores))
    names, note = shown_classes(task, scores)
    if names:
        parts.append(make_table("class", *(column.title for column in task.class_columns)))
        for name in names:
            cells = (column.text(scores[column.key][name]) for column in task.class_columns)
            parts[-1].add_row(terminal(name), *cells)
    if note:
        parts.append(f"{note} --json and the files of --output have all.")
    if told := measured.get("temperature"):
        parts.append(
            f"temperature {told['temperature']:.3f}, fitted to {told['fitted_on']} validation images: expected "
            f"calibration error {told['ece_before']:.4f} before, {told['ece_after']:.4f} after; cross-entropy "
            f"{told['loss_before']:.4f} before, {told['loss_after']:.4f} after"
        )
    show(*parts)


def _images(measured: dict[str, Any]) -> str:
    """How many images were measured, of how many."""
    images, number = measured["images"], measured["of"]
    return f"{images:,}" if images == number else f"{images:,} of {number:,}"


def _split(measured: dict[str, Any]) -> str:
    return "all splits" if measured["split"] == "all" else f"the {measured['split']} split"


def _write(folder: Path, task: Task, measured: dict, scores: dict, captions: dict[str, str]) -> None:
    """`evaluation.json`, `classes.csv`, and `README.md` that shows them, the pictures and links to pages."""
    write_text(folder / "evaluation.json", as_json(measured) + "\n")
    keys = [column.key for column in task.class_columns]
    rows = [[name, *(values[key] for key in keys)] for name, values in measured["classes"].items()]
    write_table(folder / "classes.csv", ["class", *keys], rows)
    write_text(folder / "README.md", "".join(_page(task, measured, scores, captions)))


def _page(task: Task, measured: dict, scores: dict, captions: dict[str, str]) -> Iterator[str]:
    file, dataset = (markdown(measured[key], code=True) for key in ("file", "dataset"))
    yield f"# {file} on {dataset}\n\n{_images(measured)} images of {_split(measured)}.\n"
    yield "\n| " + " | ".join(column.title for column in task.columns) + " |\n" + "| --- " * len(task.columns) + "|\n"
    yield "| " + " | ".join(column.show(scores) for column in task.columns) + " |\n"
    yield details_table(task, {measured["file"]: scores})
    if told := measured.get("temperature"):
        yield temperature_line(told, measured["file"], measured["split"])
    yield classes_table(task, {measured["file"]: scores})
    yield pictures(captions)
