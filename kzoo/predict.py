"""Classifying pictures: models to probabilities, and the names of the classes.

>>> classifier = open_classifier("resnet50")
>>> for path, probabilities in classify(classifier, find_images(["holiday"])):
...     print(path, classifier.top(probabilities, 1))
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import keras
import numpy as np

from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError, check_choice
from kzoo.images import INTERPOLATION, MODES, read_image
from kzoo.models.inception import without_auxiliary
from kzoo.registry import lookup
from kzoo.weights import DEFAULT, resolve
from kzoo.zoo import build

BATCH_SIZE = 32


@dataclass(frozen=True)
class Classifier:
    """A model, what its images must look like, and what its answers are called.

    Attributes:
        predict: pixels (n, height, width, channels) of 0 to 255 -> probabilities (n, classes).
        input_shape: (height, width, channels).
        classes: their names; where nobody knows them, their numbers.
        crop: see `kzoo.images.read_image`.
        interpolation: see `kzoo.images.read_image`.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    crop: float = 1.0
    interpolation: str = "bilinear"

    def top(self, probabilities: np.ndarray, count: int) -> list[dict]:
        """The most probable classes of one image, best first, each with its name, index and probability."""
        best = np.argsort(-probabilities, kind="stable")[:count]
        return [
            {"class": self.classes[index], "index": int(index), "probability": float(probabilities[index])}
            for index in best
        ]


def open_classifier(
    model: str,
    *,
    weights: str | None = None,
    labels: str | Path | None = None,
    image_size: int | None = None,
    crop: float | None = None,
    interpolation: str | None = None,
) -> Classifier:
    """Builds or opens a classifier.

    Args:
        model: a name of the zoo, or the path of a `.keras` or `.tflite` file.
        weights: for a name of the zoo, as in `kzoo.build`; default: `"imagenet"`.
        labels: file with a line for each class. Default: the classes in the `report.json` that a recipe put beside
            the file, or ImageNet's for 1000 classes, or numbers.
        image_size: height and width, for a model that takes more than one size. Default: the model's own.
        crop: see `kzoo.images.read_image`; default: that of a known checkpoint, or 1.
        interpolation: see `kzoo.images.read_image`; default: that of a known checkpoint, or `"bilinear"`.

    Raises:
        UnknownNameError: no such model.
        WeightsError: the weights cannot be found or do not fit.
        InvalidValueError: a file that is no classifier of images, or an option that does not fit it.

    Example:
        >>> open_classifier("resnet50").crop  # of the A1 recipe
        0.95
    """
    if image_size is not None and image_size < 1:
        raise InvalidValueError(f"image_size={image_size} must be at least 1")
    if crop is not None and not 0 < crop <= 1:
        raise InvalidValueError(f"crop={crop} must be above 0 and at most 1")
    if interpolation is not None:
        check_choice("interpolation", interpolation, INTERPOLATION)
    names = None if labels is None else _read_labels(Path(labels))
    spec = None
    if model.endswith((".keras", ".tflite")):
        if weights is not None:
            raise InvalidValueError(f"{model} has its own weights; weights go with a name of the zoo")
        if model.endswith(".tflite"):
            predict, shape, outputs = _open_lite(LiteRTModel(model))
        else:
            predict, shape, outputs = _open_keras(load_keras(model))
        names = names or _recipe_classes(Path(model), outputs)
    else:
        entry, weights = lookup(model), weights or DEFAULT
        _, spec = resolve(model, weights)
        size = None if image_size is None else (image_size, image_size, entry.input_shape[2])
        predict, shape, outputs = _open_keras(build(model, weights=weights, input_shape=size))
    return Classifier(
        predict,
        _fixed(shape, image_size, model),
        _class_names(names, outputs, model),
        crop=crop or (spec.crop if spec else 1.0),
        interpolation=interpolation or (spec.interpolation if spec else "bilinear"),
    )


def load_keras(path: str | Path) -> keras.Model:
    """Reads a `.keras` file; auxiliary heads, which serve training alone, are left out.

    Raises:
        InvalidValueError: it is absent or no such file.
    """
    if not Path(path).is_file():
        raise InvalidValueError(f"no file at {path}")
    try:
        return without_auxiliary(keras.saving.load_model(path, compile=False))
    except Exception as error:  # zip, JSON, HDF5 and Keras each raise their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidValueError(f"{path} cannot be read as a Keras model ({reason})") from error


def _open_keras(model: keras.Model):
    """What predicts probabilities, the shape of an image, and the number of classes."""
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise InvalidValueError(
            f"{model.name} is no classifier: one input, and one output (images, classes) are needed"
        )
    last = model.get_layer(model.output_names[0])
    logits = getattr(last, "activation", None) is keras.activations.linear

    def predict(images: np.ndarray) -> np.ndarray:
        outputs = model.predict(images, batch_size=BATCH_SIZE, verbose=0)
        return softmax(outputs) if logits else outputs

    return predict, tuple(model.inputs[0].shape[1:]), model.outputs[0].shape[1]


def _open_lite(model: LiteRTModel):
    """The same of a LiteRT file. Only the values of its outputs tell whether they are probabilities."""
    shape = tuple(int(size) for size in model.output["shape"])
    if len(model.input_shape) != 4 or len(shape) != 2:
        raise InvalidValueError(f"the file maps {model.input_shape} to {shape}; a classifier of images is needed")
    step = model.output["quantization"][0]  # 0 for floats

    def predict(images: np.ndarray) -> np.ndarray:
        outputs = model.predict(images)
        sums = outputs.sum(axis=-1)
        sum_to_one = np.abs(sums - 1).max() <= 0.01 + shape[1] * step / 2  # each value is rounded to a step
        return outputs if outputs.min() >= 0 and outputs.max() <= 1 and sum_to_one else softmax(outputs)

    return predict, model.input_shape[1:], shape[1]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _fixed(shape: tuple, image_size: int | None, model: str) -> tuple[int, int, int]:
    """The shape of an image with numbers for None."""
    fixed = (*(size or image_size for size in shape[:2]), shape[2])
    if shape[2] not in MODES:
        raise InvalidValueError(f"{model} takes images of {shape[2]} channels; pictures have 3, or 1 if they are grey")
    if None in fixed:
        raise InvalidValueError(f"{model} takes images of any size; say which with image_size")
    if image_size is not None and fixed[:2] != (image_size, image_size):
        raise InvalidValueError(f"{model} takes images of {fixed[0]}×{fixed[1]} alone, not image_size={image_size}")
    return fixed


def _class_names(names: Sequence[str] | None, count: int, model: str) -> tuple[str, ...]:
    """The names given, ImageNet's where their number fits, or numbers."""
    if names is None:
        imagenet = imagenet_classes()
        return imagenet if len(imagenet) == count else tuple(map(str, range(count)))
    if len(names) != count:
        raise InvalidValueError(f"there are labels for {len(names)} classes, {model} has {count}")
    return tuple(names)


def imagenet_classes() -> tuple[str, ...]:
    """The 1000 names of ImageNet-1K in the order of their WordNet numbers, as torchvision spells them."""
    file = resources.files("kzoo.weights") / "imagenet_classes.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())


def _read_labels(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValueError(
            f"cannot read the labels in {path} ({error}); give a text file, a class a line"
        ) from error


def _recipe_classes(model: Path, count: int) -> list[str] | None:
    """The classes that the recipe's report beside a model lists, if there is one."""
    try:
        classes = json.loads(model.with_name("report.json").read_text(encoding="utf-8"))["dataset"]["classes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return classes if isinstance(classes, list) and len(classes) == count else None


def classify(classifier: Classifier, paths: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray | InvalidValueError]]:
    """Yields each path with its probabilities (classes,), or with the error of a file that cannot be read."""
    for start in range(0, len(paths), BATCH_SIZE):
        batch = {path: _try_to_read(classifier, path) for path in paths[start : start + BATCH_SIZE]}
        images = [image for image in batch.values() if not isinstance(image, InvalidValueError)]
        results = iter(classifier.predict(np.stack(images)) if images else ())
        for path, image in batch.items():
            yield path, image if isinstance(image, InvalidValueError) else next(results)


def _try_to_read(classifier: Classifier, path: Path) -> np.ndarray | InvalidValueError:
    try:
        return read_image(path, classifier.input_shape, classifier.crop, classifier.interpolation)
    except InvalidValueError as error:
        return error
