"""`kzoo predict`: what pictures show, or where in them."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from kzoo.commands.forms import Predict
from kzoo.console import make_table, show, show_json
from kzoo.errors import InvalidValueError
from kzoo.escape import printable, terminal
from kzoo.files import refuse_unwritable
from kzoo.images import find_pictures
from kzoo.output import Output
from kzoo.predict import box_files
from kzoo.predict.box_files import COCO_FILE, find_boxes, write_coco
from kzoo.predict.classifier import BATCH_SIZE, Opened, as_classifier, classify, open_model
from kzoo.predict.heatmaps import check_heatmap_paths, heatmaps_of, write_heatmap
from kzoo.predict.segmenter import ENDINGS, as_segmenter, output_paths, segment


def run(form: Predict) -> None:
    if form.top is not None and form.top < 1:
        raise InvalidValueError(f"--top {form.top} must be at least 1")
    if not form.images:
        raise InvalidValueError("no image given; name files or folders behind the model")
    paths = find_pictures(form.images)
    opened = open_model(
        form.model,
        weights=form.weights,
        class_names_file=form.labels,
        values=form.values,
        image_size=form.image_size,
        **form.pixel_options,
    )
    segments, detects = opened.output.task == "segmentation", opened.output.detects
    way = _detect if detects else _segment if segments else _classify
    results = track(
        way(form, opened, paths),
        total=len(paths),
        console=Console(stderr=True),
        transient=True,
        disable=len(paths) <= BATCH_SIZE or form.tiles,  # tiles have a bar of their own
    )
    read: list[dict] = []
    broken: list[InvalidValueError] = []
    for result in results:
        if isinstance(result, InvalidValueError):
            broken.append(result)
        else:
            read.append(result)
    if not read:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise InvalidValueError(f"no image could be read: {broken[0]}{more}")
    if detects:
        write_coco(read, opened.class_names, _directory(form) / COCO_FILE)
    if form.json:
        show_json(read)
    else:
        for image in read:
            drawing = next((image[kind] for kind in ("overlay", "drawing", "heatmap") if kind in image), None)
            title = f"{image['image']} → {drawing}" if drawing else image["image"]
            show(terminal(title), _table(image, opened.output))
    for error in broken:
        print(f"kzoo: warning: {printable(' '.join(str(error).split()))}", file=sys.stderr)
    if broken:
        raise SystemExit(1)


def _table(image: dict, output: Output) -> Table:
    """What was predicted of a picture."""
    if output.detects:
        return _boxes(image["boxes"])
    return _areas(image["classes"]) if "classes" in image else _ranking(image["predictions"], output.multi_label)


def _directory(form: Predict) -> Path:
    return form.output_dir or Path("predictions")


def _classify(form: Predict, opened: Opened, paths: Sequence[Path]) -> Iterator[dict | InvalidValueError]:
    classifier = as_classifier(opened)
    directory = form.output_dir if not form.heatmap else None
    _refuse(form, "a model for segmentation or boxes", output_dir=directory)
    _refuse(form, "a model for segmentation", tiles=form.tiles or None)
    _refuse(form, "a detector", score=form.score, crops=form.crops or None)
    top = 5 if form.top is None else form.top
    results = (
        result
        if isinstance(result, InvalidValueError)
        else {"image": str(path), "predictions": classifier.top(result, top)}
        for path, result in classify(classifier, paths)
    )
    return _with_heatmaps(form, opened, paths, results) if form.heatmap else results


def _with_heatmaps(
    form: Predict, opened: Opened, paths: Sequence[Path], results: Iterator[dict | InvalidValueError]
) -> Iterator[dict | InvalidValueError]:
    """The results, each with the path of its drawing."""
    maps, directory = heatmaps_of(opened), _directory(form)
    check_heatmap_paths(paths, directory)
    refuse_unwritable(directory)
    classifier = as_classifier(opened)

    def drawn(result: dict | InvalidValueError) -> dict | InvalidValueError:
        if isinstance(result, InvalidValueError):
            return result
        best = result["predictions"][0]["index"]
        return result | {"heatmap": str(write_heatmap(classifier, maps, Path(result["image"]), best, directory))}

    return map(drawn, results)


def _segment(form: Predict, opened: Opened, paths: Sequence[Path]) -> Iterator[dict | InvalidValueError]:
    _refuse(form, "a classifier", top=form.top, crop=form.crop, heatmap=form.heatmap or None)
    _refuse(form, "a detector", score=form.score, crops=form.crops or None)
    segmenter = as_segmenter(opened)
    for option in ("interpolation", "resize"):
        if form.tiles and getattr(form, option):
            raise InvalidValueError(f"--{option} is of the resizing, and --tiles does without")
    directory = _directory(form)
    outputs = output_paths(paths, directory, ENDINGS)
    refuse_unwritable(directory)
    return segment(segmenter, outputs, form.tiles)


def _detect(form: Predict, opened: Opened, paths: Sequence[Path]) -> Iterator[dict | InvalidValueError]:
    _refuse(form, "a classifier", top=form.top, crop=form.crop, heatmap=form.heatmap or None)
    _refuse(form, "a model for segmentation", tiles=form.tiles or None)
    if form.score is not None and not 0 <= form.score <= 1:
        raise InvalidValueError(f"--score {form.score} must be from 0 to 1")
    opened.pixels.check_whole(opened.name, "tells where things are")
    outputs = output_paths(paths, _directory(form), box_files.ENDINGS)
    if form.crops:
        box_files.check_crop_paths(paths, _directory(form))
    refuse_unwritable(_directory(form))
    return find_boxes(opened, outputs, form.score, form.crops)


def _refuse(form: Predict, others: str, **options) -> None:
    for name, value in options.items():
        if value is not None:
            raise InvalidValueError(f"--{name.replace('_', '-')} goes with {others}, which {form.model} is not")


def _boxes(boxes: list[dict]) -> Table:
    table = make_table("class", "score", "left", "top", "right", "bottom")
    for each in boxes:
        table.add_row(terminal(each["class"]), f"{each['score']:.3f}", *(f"{side:.1f}" for side in each["box"]))
    return table


def _ranking(predictions: list[dict], several: bool) -> Table:
    table = make_table("rank", "class", "probability, by itself" if several else "probability")
    for rank, found in enumerate(predictions, start=1):
        table.add_row(str(rank), terminal(found["class"]), f"{found['probability']:.2%}")
    return table


def _areas(classes: list[dict]) -> Table:
    table = make_table("class", "pixels", "share")
    for found in sorted(classes, key=lambda found: -found["pixels"]):
        if found["pixels"]:
            table.add_row(terminal(found["class"]), f"{found['pixels']:,}", f"{found['share']:.2%}")
    return table
