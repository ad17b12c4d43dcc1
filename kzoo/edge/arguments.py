"""The arguments of `export`, checked before any work."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from kzoo.detection.average_precision import CROWD
from kzoo.edge.card import Card
from kzoo.edge.compare import Truth
from kzoo.edge.interface import IO
from kzoo.edge.precisions import PRECISIONS
from kzoo.edge.tensors import answer_of, input_names, only, outputs_by_name
from kzoo.errors import ExportError, InvalidValueError, OutputError, check_choice
from kzoo.flatten import all_layers
from kzoo.last_operation import BOXES, scores_of
from kzoo.layers.checks import is_integer
from kzoo.meaning import carried_pixels
from kzoo.models.inception import without_auxiliary
from kzoo.output import UNKNOWN, Output
from kzoo.preprocessing import normalisation
from kzoo.surgery import with_heatmap

NO_ANSWER = Output(UNKNOWN, UNKNOWN, 1)  # of several outputs, none of which is one


def check_path(path: str | Path, suffix: str = ".tflite") -> Path:
    """The path as such; it must end in the suffix of the format."""
    path = Path(path)
    if path.suffix != suffix:
        raise InvalidValueError(f"path={str(path)!r} must end in {suffix}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the path of a file")
    return path


def check_options(
    precisions: Sequence[str],
    batch_size: int,
    threads: Sequence[int],
    max_error: float = 1.0,
    others: tuple[str, ...] = (),
) -> None:
    """Raises `InvalidValueError` for a precision, a size or a number that does not exist."""
    if not precisions:
        raise InvalidValueError(f"no precision given; choose of {', '.join(PRECISIONS)}")
    for precision in precisions:
        check_choice("precision", precision, (*PRECISIONS, *others))
    if not is_integer(batch_size, 1):
        raise InvalidValueError(f"batch_size={batch_size!r} must be a positive integer")
    if not isinstance(threads, (tuple, list, range)) or not all(is_integer(count, 1) for count in threads):
        raise InvalidValueError(f"threads={threads!r} must be a tuple of positive integers")
    if not isinstance(max_error, (int, float)) or not max_error > 0:
        raise InvalidValueError(f"max_error={max_error!r} must be a number above 0")


def check_is_model(model: object) -> None:
    """Raises `InvalidValueError` unless it is a Keras model."""
    if not isinstance(model, keras.Model):
        raise InvalidValueError(f"{model!r} is no Keras model; give what kzoo.build or keras.Model returns")


def check_model(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Name of each input -> shape without the batch; raises `ExportError` if the model cannot be exported."""
    inputs, outputs = getattr(model, "inputs", None) or [], getattr(model, "outputs", None) or []
    if not inputs or not outputs:
        raise ExportError(
            f"{model.name} has {len(inputs)} inputs and {len(outputs)} outputs (a subclassed model has none); a "
            "functional model is exported: keras.Model(image, model(image)) with image = keras.Input(shape)"
        )
    outputs_by_name(model)
    trained = (layer for layer in all_layers(model) if layer.weights)
    half = next((layer for layer in trained if layer.compute_dtype in ("float16", "bfloat16")), None)
    if half is not None:
        raise ExportError(
            f"layer {half.name!r} of {model.name} computes in {half.compute_dtype}; build the model again under "
            "keras.config.set_dtype_policy('float32') and give it these weights with set_weights"
        )
    names = input_names(model)
    if len(set(names)) < len(names):
        raise ExportError(f"{model.name} has inputs of one name: {', '.join(names)}; give each its own")
    shapes = dict(zip(names, (tuple(tensor.shape[1:]) for tensor in inputs), strict=True))
    for name, shape in shapes.items():
        if None in shape or (len(shapes) == 1 and len(shape) != 3):
            raise ExportError(
                f"{model.name} takes inputs of shape {shape}{f' as {name}' if len(shapes) > 1 else ''}; a file needs "
                "a static (height, width, channels): build with input_shape=(height, width, channels)"
            )
    return shapes


def check_reference(model: keras.Model, reference: keras.Model | None) -> keras.Model:
    """The model to compare with; raises `InvalidValueError` unless it takes and gives what `model` does."""
    if reference is None:
        return model
    check_is_model(reference)
    reference = reference if len(model.outputs) > 1 else without_auxiliary(reference)
    for kind in ("input_shape", "output_shape"):
        ours, theirs = getattr(model, kind), getattr(reference, kind, None)
        if ours != theirs:
            raise InvalidValueError(
                f"reference={reference.name!r} has the {kind} {theirs}, {model.name} {ours}; give the model that it "
                "was made of"
            )
    return reference


def add_heatmap(model: keras.Model, reference: keras.Model | None) -> tuple[keras.Model, keras.Model | None]:
    """Model and reference, each with a heat map (`kzoo.surgery.with_heatmap`).

    Raises:
        InvalidValueError: one of them has none.
    """
    if reference is None:
        return with_heatmap(model), None
    check_is_model(reference)
    return with_heatmap(model), with_heatmap(without_auxiliary(reference))


def check_card(model: keras.Model, card: Card | None, class_names: Sequence[str] | None = None) -> Card:
    """The card, or one of what the model tells by itself; raises `InvalidValueError` if it tells of another model."""
    answer = answer_of(model) if len(model.outputs) > 1 else None
    detects = scores_of(model) is not None
    if answer and not detects:
        model = only(model, answer)
    own = Output.of_model(model) if detects or len(model.outputs) == 1 else NO_ANSWER
    if card is None:
        pixels = carried_pixels(model)
        return Card(own if class_names is None else own.named(class_names), pixels, answer)
    if class_names is not None:
        raise InvalidValueError("class_names go into the card that is given too; give one of both")
    if not isinstance(card, Card):
        raise InvalidValueError(f"card={card!r} must be a kzoo.edge.Card")
    told = card.output
    if told.units != own.units or told.task != own.task:
        raise InvalidValueError(
            f"the card is of {told.task} with {told.num_classes} classes by {told.units} units; {model.name} has "
            f"{own.units} units for {own.task}"
        )
    if told.suppression is not None:
        told.suppression.check_places(model.output[BOXES].shape[1], model.name)
    if own.values not in (told.values, UNKNOWN):
        raise InvalidValueError(f"the card says that the values are {told.values}; {model.name} ends in {own.values}")
    return Card(told, card.pixels, answer)


def check_io(io: str | None, precisions: Sequence[str]) -> None:
    """Raises `InvalidValueError` for types that do not exist, or that a precision does not take and give."""
    if io is None:
        return
    check_choice("io", io, IO)
    for precision in precisions:
        if io != "float32" and PRECISIONS[precision].activation_bits != 8:
            raise InvalidValueError(
                f"io={io!r} is of files whose activations are 8-bit integers (int8, int4); {precision} takes and "
                "gives other numbers: leave io out, or say io='float32'"
            )


def check_images(
    model: keras.Model, shapes: Mapping[str, tuple], card: Card, precisions: Sequence[str], calibration, evaluation
) -> tuple[dict[str, np.ndarray] | None, tuple[np.ndarray, Truth] | None]:
    """Calibration images as float32, by the name of their input, and evaluation images and labels.

    Raises:
        InvalidValueError: they do not fit.
    """
    of_pixels = (found := normalisation(model)) is not None and found.of_pixels
    if evaluation is not None:
        if not isinstance(evaluation, (tuple, list)) or len(evaluation) != 2:
            raise InvalidValueError("evaluation must be a pair: images, and their labels or masks")
        if len(shapes) > 1 or (len(model.outputs) > 1 and card.answer is None):
            raise InvalidValueError(
                f"{model.name} is evaluated with one input and an output that answers what is in it; it has "
                f"{', '.join(shapes)} and {', '.join(outputs_by_name(model))}: leave evaluation out"
            )
        images, truth = _as_array("evaluation", evaluation[0]), evaluation[1]
        _check_images(next(iter(shapes.values())), of_pixels, "evaluation", images)
        if card.output.detects:
            evaluation = images, _check_boxes(truth, len(images), card.output)
        else:
            answer, labels = only(model, card.answer) if card.answer else model, _as_array("evaluation", truth)
            evaluation = images, _check_labels(answer, card.output, labels, len(images))
    if calibration is None:
        needing = [name for name in precisions if PRECISIONS[name].calibrated]
        if needing:
            raise InvalidValueError(
                f"precision={needing[0]!r} needs calibration images: 100 or more from the training set"
            )
        return None, evaluation
    if len(shapes) == 1 and not isinstance(calibration, Mapping):
        calibration = dict.fromkeys(shapes, calibration)
    if not isinstance(calibration, Mapping) or calibration.keys() != shapes.keys():
        raise InvalidValueError(f"calibration must be a dict with an array for each of {', '.join(shapes)}")
    arrays = {}
    for name, shape in shapes.items():
        what = f"calibration[{name!r}]" if len(shapes) > 1 else "calibration"
        array = _as_array(what, calibration[name])
        _check_images(shape, of_pixels, what, array)
        arrays[name] = array.astype("float32", copy=False)
    if len(counts := {len(array) for array in arrays.values()}) > 1:
        raise InvalidValueError(f"calibration has {sorted(counts)} images for its inputs; each needs as many")
    return arrays, evaluation


def _check_labels(model: keras.Model, output: Output, labels: np.ndarray, count: int) -> np.ndarray:
    """Labels of the evaluation as integers."""
    if not output.decides:
        output.check_known(model.name)
    wanted = "0 and 1" if output.multi_label else "class indices"
    expected = (count, output.units) if output.multi_label else (count, *model.output_shape[1:-1])
    if labels.shape == (*expected, 1) and output.units == 1:  # as Keras' binary losses take them
        labels = labels[..., 0]
    whole = np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool
    if labels.shape != expected or not (whole or output.multi_label):
        raise InvalidValueError(
            f"evaluation has labels of shape {labels.shape} and type {labels.dtype}; {wanted} of shape {expected} are "
            "needed"
        )
    if output.multi_label and not np.isin(labels, (0, 1)).all():
        raise InvalidValueError(
            f"evaluation has labels other than 0 and 1; {model.name} gives each class a sigmoid of its own"
        )
    if not ((labels >= 0) & (labels < output.num_classes)).any():
        raise InvalidValueError(
            f"evaluation has no label from 0 to {output.num_classes - 1}, the classes of {model.name}"
        )
    return labels.astype("int64")


def _check_boxes(truth: object, count: int, output: Output) -> dict[str, np.ndarray]:
    """True boxes of the evaluation, relative to the images, and their classes."""
    parts = (BOXES, "classes")
    if not isinstance(truth, Mapping) or not {*parts} <= truth.keys():
        raise InvalidValueError(
            "evaluation of a detector is a pair: images, and a dict of boxes (n, most, 4), relative to the images, "
            "and classes (n, most)"
        )
    boxes, classes = (_as_array(f"evaluation[{name!r}]", truth[name]) for name in parts)
    whole = np.issubdtype(classes.dtype, np.integer)
    if classes.ndim != 2 or len(classes) != count or boxes.shape != (*classes.shape, 4) or not whole:
        raise InvalidValueError(
            f"evaluation has boxes of shape {boxes.shape}, and classes of shape {classes.shape} and type "
            f"{classes.dtype}; ({count}, most, 4), and integers of ({count}, most) are needed"
        )
    there = boxes[classes >= 0]
    if not len(there) or classes.max() >= output.units or classes.min() < CROWD - output.units + 1:
        raise InvalidValueError(
            f"evaluation has classes from {classes.min()} to {classes.max()}; 0 to {output.units - 1} are the "
            "model's, some of which must be there; -1 is no box"
        )
    if not np.isfinite(there).all() or there.min() < -1 or there.max() > 2:
        raise InvalidValueError(
            f"evaluation has boxes from {there.min():g} to {there.max():g}; they are relative to the image: 0 to 1"
        )
    return {BOXES: boxes.astype("float32"), "classes": classes.astype("int64")}


def _as_array(what: str, values) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:  # images of several sizes
        raise InvalidValueError(f"{what} is no array: {error}; resize the images to one size") from error
    if array.dtype == object or array.ndim == 0:
        raise InvalidValueError(
            f"{what} has shape {array.shape}: {type(values).__name__} is no array of numbers; of a tf.data set of "
            "images take np.stack(list(dataset.unbatch().take(200).as_numpy_iterator()))"
        )
    return array


def _check_images(shape: tuple, of_pixels: bool, what: str, images: np.ndarray) -> None:
    if len(images) == 0 or images.shape[1:] != shape:
        raise InvalidValueError(f"{what} has shape {images.shape}; images of shape (n, {shape}) are needed")
    if not np.isfinite(images).all():
        raise InvalidValueError(f"{what} holds NaN or infinite pixels")
    low, high = float(images.min()), float(images.max())
    if of_pixels and (low < 0 or high > 255 or high <= 1):
        raise InvalidValueError(f"{what} pixels are {low:g} to {high:g}; the model eats pixels of 0 to 255")
