"""`kzoo explain`: a page that shows which places of pictures speak for what a model says of them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from kzoo.class_names import FILES
from kzoo.commands.forms import Explain
from kzoo.console import show, show_json
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError, UnknownNameError, counted, did_you_mean
from kzoo.escape import terminal
from kzoo.explain import draw_kernels
from kzoo.explain.facts import facts_of
from kzoo.explain.interior import check_query, inside_of, statistics_of
from kzoo.explain.methods import check_methods, maps_of
from kzoo.explain.page import PAGE, check_folder, write_page
from kzoo.explain.shown import Explained, Shown
from kzoo.explain.trust import trust_of
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
    names = [form.model] if form.compare is None else [form.model, form.compare]
    opened = [_open(form, name) for name in names]
    targets = find_classes(form.target, opened[0].class_names, form.model)
    indices = [{index: index for index in range(len(opened[0].class_names))}]
    indices += [_same_classes(opened[0], other, targets) for other in opened[1:]]
    methods = form.method or (("occlusion",) if any(isinstance(each.model, LiteRTModel) for each in opened) else ())
    asked = [check_methods(each.model, methods, form.layer, each.name) for each in opened]
    for each in opened:
        _check_query(form, each)
    images = [[each.pixels.read(path, each.input_shape) for path in paths] for each in opened]  # before the long work
    chosen: list[list[int]] = []  # classes of each picture, of the first model
    shown = []
    for each, own, (chosen_methods, layers), same in zip(opened, images, asked, indices, strict=True):
        pictures: list[Explained] = []
        explain = _segmenter(each) if each.output.task == "segmentation" else _classifier(each)
        for path, image in zip(paths, _track(own, f"explaining {each.name}"), strict=True):
            predictions, mask = explain(image)
            if len(chosen) < len(paths):
                chosen.append(targets or [found["index"] for found in predictions[:EXPLAINED]])
            wanted = [same[index] for index in chosen[len(pictures)]]
            maps = maps_of(each.model, image, wanted, chosen_methods, layers)
            inside = None
            if not form.maps_only and isinstance(each.model, keras.Model):
                inside = inside_of(each.model, image, form.query)
            pictures.append(Explained(str(path), image, predictions, maps, mask, inside))
        shown.append(_shown(form, each, pictures, [same[classes[0]] for classes in chosen]))
    told = write_page(form.output, *shown)
    if form.json:
        return show_json(told)
    count = counted(sum(len(picture.maps) for each in shown for picture in each.pictures), "map")
    show(terminal(f"{form.output / PAGE}: {count} of {counted(len(paths), 'picture')}"))


def _open(form: Explain, name: str) -> Opened:
    """A model; the weights of the command line go with names of the zoo."""
    return open_model(
        name,
        weights=None if form.compare is not None and name.endswith(FILES) else form.weights,
        class_names_file=form.labels,
        values=form.values,
        image_size=form.image_size,
        **form.pixel_options,
    )


def _same_classes(first: Opened, second: Opened, targets: Sequence[int]) -> dict[int, int]:
    """Index of a class of the first model -> that of the class of this name of the second.

    Raises:
        InvalidValueError: the second lacks one, or is of another task.
    """
    if first.output.task != second.output.task:
        raise InvalidValueError(
            f"{first.name} is for {first.output.task} and {second.name} for {second.output.task}; compare models of "
            "one task"
        )
    others = {name: index for index, name in reversed(list(enumerate(second.class_names)))}
    asked = targets or range(len(first.class_names))
    for index in asked:
        if first.class_names[index] not in others:
            raise InvalidValueError(
                f"{second.name} has no class {first.class_names[index]!r}, which {first.name} has; compare models of "
                "the same classes, or give common ones with --target"
            )
    return {index: others[first.class_names[index]] for index in asked}


def _check_query(form: Explain, opened: Opened) -> None:
    if form.query is None:
        return
    if form.maps_only:
        raise InvalidValueError("--query is of attention, which --maps-only leaves out; give one of them")
    if isinstance(opened.model, LiteRTModel):
        if form.compare is None:
            raise InvalidValueError(
                f"{opened.name} is a LiteRT file, whose attention cannot be read; leave --query out"
            )
        return
    check_query(opened.model, opened.input_shape, form.query)


def _shown(form: Explain, opened: Opened, pictures: Sequence[Explained], first: Sequence[int]) -> Shown:
    """A model with its pictures, and what is told of all of them; `first` is the first class of each."""
    name, model, output = "/".join(Path(opened.name).parts[-2:]), opened.model, opened.output
    card = facts_of(opened.name, model, output, opened.pixels, opened.input_shape)
    shown = Shown(name, _scores(opened), opened.class_names, pictures, card)
    if form.maps_only:
        return shown
    images = np.stack([picture.image for picture in pictures])
    groups = len({(each.method, each.layer) for each in pictures[0].maps})
    maps = [picture.maps for picture in pictures]
    trust = list(_track(trust_of(model, output, images, maps, first), f"judging {opened.name}", groups))
    if isinstance(model, LiteRTModel):
        return replace(shown, trust=trust)
    try:
        kernels = draw_kernels(model)
    except InvalidValueError:  # no convolution, or one that does not read pixels
        kernels = None
    statistics = statistics_of(model, images[0], first[0])
    return replace(shown, trust=trust, statistics=statistics, kernels=kernels, whole=True)


def _track(work: Iterable, words: str, total: int | None = None) -> Iterable:
    """The items with a bar on standard error while it is a terminal."""
    console = Console(stderr=True)
    words = terminal(words)
    return track(work, words, total=total, console=console, transient=True, disable=not console.is_terminal)


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
