"""`kzoo explain`: a page that shows which places of pictures speak for what a model says of them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.progress import track

from kzoo.class_names import FILES
from kzoo.commands.answers import Answer, answering, answering_again
from kzoo.commands.forms import Explain
from kzoo.console import show, show_json
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError, UnknownNameError, counted, did_you_mean
from kzoo.escape import terminal
from kzoo.explain import draw_kernels
from kzoo.explain.boxes import Box
from kzoo.explain.facts import facts_of
from kzoo.explain.interior import check_query, inside_of, statistics_of
from kzoo.explain.methods import check_methods, maps_of
from kzoo.explain.page import PAGE, check_folder, write_page
from kzoo.explain.shown import Explained, Shown
from kzoo.explain.trust import trust_of
from kzoo.files import refuse_unwritable
from kzoo.images import find_pictures
from kzoo.predict.classifier import Opened, open_model


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
    _check_boxes(form, opened[0])
    methods = form.method or (("occlusion",) if any(isinstance(each.model, LiteRTModel) for each in opened) else ())
    asked = [check_methods(each.model, methods, form.layer, each.name) for each in opened]
    for each in opened:
        _check_query(form, each)
    images = [[each.pixels.read(path, each.input_shape) for path in paths] for each in opened]  # before the long work
    answers: list[Answer] = []  # of the first model
    shown: list[Shown] = []
    for each, own, (chosen_methods, layers), same in zip(opened, images, asked, indices, strict=True):
        pictures, targets_of = [], []
        say, again = answering(each, targets, form.box), answering_again(each, opened[0], same)
        for number, (path, image) in enumerate(zip(paths, _track(own, f"explaining {each.name}"), strict=True)):
            answer = again(image, path, answers[number]) if shown else say(image)
            if not shown:
                answers.append(answer)
            maps = maps_of(each.model, image, answer.targets, chosen_methods, layers)
            inside = None
            if not form.maps_only and isinstance(each.model, keras.Model):
                inside = inside_of(each.model, image, form.query)
            pictures.append(Explained(str(path), image, answer.predictions, maps, answer.mask, inside))
            targets_of.append(answer.targets)
        shown.append(_shown(form, each, pictures, [first for first, *_ in targets_of]))
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


def _check_boxes(form: Explain, opened: Opened) -> None:
    if form.box and not opened.output.detects:
        raise InvalidValueError(f"--box is of detectors, and {opened.name} is for {opened.output.task}; give --target")
    if form.box and form.target:
        raise InvalidValueError(
            "--box tells which boxes are explained, and --target of which classes; give one of them"
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


def _shown(
    form: Explain, opened: Opened, pictures: Sequence[Explained], first: Sequence[int] | Sequence[Box]
) -> Shown:
    """A model with its pictures, and what is told of all of them; `first` is what is explained first of each."""
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


def _scores(opened: Opened) -> str:
    """What a score is, for people."""
    if opened.output.detects:
        return (
            "of a box that of its class at its place, from 0 to 1; maps with gradients are of the logit in front of "
            "it, and maps by hiding parts of how much of the box is still found"
        )
    if isinstance(opened.model, LiteRTModel):
        return "the numbers that the file gives" + (": " + opened.output.in_words() if opened.output.decides else "")
    if opened.output.task == "segmentation":
        return "logits, before any softmax or sigmoid: of a class their mean over the pixels where it is found"
    return "logits, before any softmax or sigmoid"
