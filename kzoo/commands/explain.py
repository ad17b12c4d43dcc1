"""`kzoo explain`: a page that shows which places of pictures speak for what a model says of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from kzoo.commands.forms import Explain
from kzoo.console import show, show_json
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError, UnknownNameError, counted, did_you_mean
from kzoo.escape import terminal
from kzoo.explain.methods import check_methods, maps_of
from kzoo.explain.page import PAGE, Explained, check_folder, write_page
from kzoo.files import refuse_unwritable
from kzoo.images import find_pictures
from kzoo.images.overlay import draw_overlay
from kzoo.predict.classifier import Opened, as_classifier, open_model
from kzoo.predict.segmenter import as_segmenter, class_areas

SHOWN = 5  # classes of a picture in the table
EXPLAINED = 2  # classes of which maps are made where nobody says which


def run(form: Explain) -> None:
    if not form.pictures:
        raise InvalidValueError("no picture given; name files or folders behind the model")
    check_folder(form.output)
    refuse_unwritable(form.output.absolute().parent)
    paths = find_pictures(form.pictures)
    opened = open_model(
        form.model,
        weights=form.weights,
        class_names_file=form.labels,
        values=form.values,
        image_size=form.image_size,
        **form.pixel_options,
    )
    targets = find_classes(form.target, opened.class_names, form.model)
    methods, layers = check_methods(opened.model, form.method, form.layer, form.model)
    explain = _segmenter(opened) if opened.output.task == "segmentation" else _classifier(opened)
    images = [opened.pixels.read(path, opened.input_shape) for path in paths]  # all, before the long work starts
    pictures, console = [], Console(stderr=True)
    shown = track(images, "explaining", console=console, transient=True, disable=not console.is_terminal)
    for path, image in zip(paths, shown, strict=True):
        predictions, mask = explain(image)
        chosen = targets or [each["index"] for each in predictions[:EXPLAINED]]
        maps = maps_of(opened.model, image, chosen, methods, layers)
        pictures.append(Explained(str(path), image, predictions, maps, mask))
    told = write_page(
        form.output, "/".join(Path(form.model).parts[-2:]), _scores(opened), opened.class_names, pictures
    )
    if form.json:
        return show_json(told)
    count = counted(sum(len(picture.maps) for picture in pictures), "map")
    show(terminal(f"{form.output / PAGE}: {count} of {counted(len(pictures), 'picture')}"))


def find_classes(given: Sequence[str], class_names: Sequence[str], model: str) -> list[int]:
    """Indices of classes that were given by name or index, each once; a name goes before an index.

    Raises:
        UnknownNameError: no such class.

    Example:
        >>> find_classes(["dog", "0"], ["cat", "dog"], "the model")
        [1, 0]
    """
    indices = {name: index for index, name in reversed(list(enumerate(class_names)))}
    found = []
    for name in given:
        if name in indices:
            found.append(indices[name])
        elif name.isdecimal() and name.isascii() and int(name) < len(class_names):
            found.append(int(name))
        else:
            meant = did_you_mean(name, class_names) or f"; some are {', '.join(class_names[:5])}"
            raise UnknownNameError(
                f"{model} has no class {name!r}: give a name, or an index from 0 to {len(class_names) - 1}{meant}"
            )
    return list(dict.fromkeys(found))


def _classifier(opened: Opened):
    """The function from an image to its most probable classes."""
    classifier = as_classifier(opened)

    def explain(image: np.ndarray) -> tuple[list[dict], None]:
        (probabilities,) = classifier.predict(image[None])
        return classifier.top(probabilities, SHOWN), None

    return explain


def _segmenter(opened: Opened):
    """The function from an image to its largest classes, and the image with the classes of its pixels."""
    segmenter = as_segmenter(opened)

    def explain(image: np.ndarray) -> tuple[list[dict], Image.Image]:
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        mask = segmenter.segment(picture)
        areas = sorted(class_areas(mask, segmenter.class_names), key=lambda area: -area["pixels"])
        return [area for area in areas if area["pixels"]][:SHOWN], draw_overlay(picture, mask, segmenter.class_names)

    return explain


def _scores(opened: Opened) -> str:
    """What a score is, for people."""
    if isinstance(opened.model, LiteRTModel):
        return "the numbers that the file gives" + (": " + opened.output.in_words() if opened.output.decides else "")
    if opened.output.task == "segmentation":
        return "logits, before any softmax or sigmoid: of a class their mean over the pixels where it is found"
    return "logits, before any softmax or sigmoid"
