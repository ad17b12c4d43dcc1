"""Opening models for pictures, and classifying with them: probabilities, and the names of the classes.

>>> classifier = open_classifier("resnet50")
>>> for path, probabilities in classify(classifier, find_images(["holiday"])):
...     print(path, classifier.top(probabilities, 1))
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from kzoo.class_names import FILES, check_labels, known_classes, read_labels
from kzoo.edge import LiteRTModel, read_card
from kzoo.errors import InvalidValueError, WeightsError, check_choice
from kzoo.images import INTERPOLATION, MODES, read_image
from kzoo.keras_file import open_keras
from kzoo.models.inception import without_auxiliary
from kzoo.registry import SEGMENTATION, lookup
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


@dataclass(frozen=True)
class Opened:
    """A model, and how its user wants it to be fed; `open_model` makes one.

    Attributes:
        name: what it was opened by.
        model: a Keras model or a LiteRT file.
        labels: names of the classes from the user's file, if there is one.
        image_size: height and width, where the user chose.
        crop: see `kzoo.images.read_image`.
        interpolation: see `kzoo.images.read_image`.
    """

    name: str
    model: keras.Model | LiteRTModel
    labels: Sequence[str] | None
    image_size: int | None
    crop: float
    interpolation: str

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images that it gets."""
        lite = isinstance(self.model, LiteRTModel)
        shape = self.model.input_shape if lite else tuple(self.model.inputs[0].shape)
        if len(shape) != 4:
            raise InvalidValueError(f"{self.name} takes {shape}, no images (images, height, width, channels)")
        return _fixed(shape[1:], self.image_size, self.name)

    @property
    def output_shape(self) -> tuple:
        """(images, classes) of a classifier, (images, height, width, classes) of a model for segmentation."""
        if isinstance(self.model, LiteRTModel):
            return tuple(int(size) for size in self.model.output["shape"])
        counts = [len(tensors or ()) for tensors in (self.model.inputs, self.model.outputs)]
        if counts != [1, 1]:
            raise InvalidValueError(
                f"{self.name} has {counts[0]} inputs and {counts[1]} outputs; a model from images alone to classes "
                "alone, or to maps of classes, is needed"
            )
        return tuple(self.model.outputs[0].shape)

    def gives_logits(self) -> bool:
        """Whether the last layer of a Keras model says that its outputs are logits; a LiteRT file does not tell."""
        if isinstance(self.model, LiteRTModel):
            return False
        last = next((layer for layer in self.model.layers if layer.name == self.model.output_names[0]), None)
        return getattr(last, "activation", None) is keras.activations.linear

    def are_probabilities(self, outputs: np.ndarray) -> bool:
        """Whether values (..., classes) of the output could be probabilities of classes."""
        rounding = self.model.output["quantization"][0] / 2 if isinstance(self.model, LiteRTModel) else 0
        off = np.abs(outputs.sum(axis=-1) - 1).max()
        return outputs.min() >= 0 and outputs.max() <= 1 and off <= 0.01 + outputs.shape[-1] * rounding

    def class_names(self, count: int) -> tuple[str, ...]:
        """The user's, those that the model is known by, or numbers."""
        if self.labels is not None:
            return check_labels(self.labels, count, self.name)
        return known_classes(self.name, count) or tuple(map(str, range(count)))


def open_model(
    model: str,
    *,
    weights: str | None = None,
    labels: str | Path | None = None,
    image_size: int | None = None,
    crop: float | None = None,
    interpolation: str | None = None,
) -> Opened:
    """Builds or opens a model, whatever it tells of its images.

    Args:
        model: a name of the zoo, or the path of a `.keras` or `.tflite` file.
        weights: for a name of the zoo, as in `kzoo.build`; default: `"imagenet"`.
        labels: file with a line for each class. Default: those of the card of a LiteRT file, those in the
            `report.json` that a recipe put beside the file, ImageNet's for 1000 classes, or numbers.
        image_size: height and width, for a model that takes more than one size. Default: the model's own.
        crop: see `kzoo.images.read_image`; default: that of a file's card or a known checkpoint, or 1.
        interpolation: see `kzoo.images.read_image`; default: that of a file's card or a known
            checkpoint, or `"bilinear"`.

    Raises:
        UnknownNameError: no such model.
        WeightsError: the weights cannot be found or do not fit.
        InvalidValueError: a file that holds no model, or an impossible option.
    """
    if image_size is not None and image_size < 1:
        raise InvalidValueError(f"image_size={image_size} must be at least 1")
    if crop is not None and not 0 < crop <= 1:
        raise InvalidValueError(f"crop={crop} must be above 0 and at most 1")
    if interpolation is not None:
        check_choice("interpolation", interpolation, INTERPOLATION)
    names = None if labels is None else read_labels(Path(labels))
    spec = None
    if model.endswith(FILES):
        if weights is not None:
            raise InvalidValueError(f"{model} has its own weights; weights go with a name of the zoo")
        opened = LiteRTModel(model) if model.endswith(".tflite") else load_keras(model)
        spec = read_card(model) if model.endswith(".tflite") else None
    else:
        entry = lookup(model)
        if entry.task == SEGMENTATION and weights is None:
            raise WeightsError(
                f"no checkpoint known for {model}; train one (kzoo train camvid_fpn, say) and give its .keras file, "
                "or give --weights FILE"
            )
        weights = weights or DEFAULT
        _, spec = resolve(model, weights)
        size = None if image_size is None else (image_size, image_size, entry.input_shape[2])
        opened = build(model, weights=weights, input_shape=size)
    return Opened(
        model,
        opened,
        names,
        image_size,
        crop=crop or (spec.crop if spec else 1.0),
        interpolation=interpolation or (spec.interpolation if spec else "bilinear"),
    )


def open_classifier(model: str, **options) -> Classifier:
    """Builds or opens a classifier; takes what `open_model` takes.

    Raises:
        InvalidValueError: a file that is no classifier of images, and what `open_model` raises.

    Example:
        >>> open_classifier("resnet50").crop  # of the A1 recipe
        0.95
    """
    return as_classifier(open_model(model, **options))


def as_classifier(opened: Opened) -> Classifier:
    """What classifies with an opened model.

    Raises:
        InvalidValueError: it is no classifier of images.
    """
    shape, model = opened.output_shape, opened.model
    if len(shape) != 2:
        raise InvalidValueError(f"{opened.name} is no classifier: its output is {shape} instead of (images, classes)")

    def predict(images: np.ndarray) -> np.ndarray:
        if isinstance(model, LiteRTModel):
            outputs = model.predict(images)
            return outputs if opened.are_probabilities(outputs) else softmax(outputs)
        outputs = model.predict(images, batch_size=BATCH_SIZE, verbose=0)
        return softmax(outputs) if opened.gives_logits() else outputs

    return Classifier(predict, opened.input_shape, opened.class_names(shape[1]), opened.crop, opened.interpolation)


def load_keras(path: str | Path) -> keras.Model:
    """Opens a `.keras` file as `open_keras` does; auxiliary heads, which serve training alone, are left out.

    Raises:
        InvalidValueError: it is absent, no such file, or refused.
    """
    return without_auxiliary(open_keras(path))


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
