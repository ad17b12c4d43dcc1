"""Opening models for pictures, and classifying with them: probabilities, and the names of the classes.

>>> classifier = open_classifier("resnet50")
>>> for path, probabilities in classify(classifier, find_pictures(["holiday"])):
...     print(path, classifier.top(probabilities, 1))
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.class_names import FILES, display_names, known_output, read_class_names
from kzoo.edge import LiteRTModel, read_card
from kzoo.errors import InvalidValueError, WeightsError
from kzoo.images import MODES, Interpolation, Pixels, Resize
from kzoo.keras_file import open_keras
from kzoo.known_pixels import known_pixels
from kzoo.models.inception import without_auxiliary
from kzoo.output import Output, Values
from kzoo.registry import CLASSIFICATION, DETECTION, SEGMENTATION, lookup
from kzoo.weights import DEFAULT, resolve
from kzoo.zoo import build

BATCH_SIZE = 32
TRAINED = {SEGMENTATION: "camvid_fpn", DETECTION: "bccd_fcos"}  # a recipe of each task without public weights


@dataclass(frozen=True)
class Classifier:
    """A model, what its images must look like, and what its answers are called.

    Attributes:
        predict: function from images (n, height, width, channels) of 0 to 255 to probabilities (n, classes).
        input_shape: (height, width, channels).
        class_names: names of the classes; where nobody knows them, their numbers.
        multi_label: whether each class has a probability of its own, and several may be there, or none.
        pixels: way in which a picture becomes an image.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    multi_label: bool
    pixels: Pixels

    def top(self, probabilities: np.ndarray, count: int) -> list[dict]:
        """The most probable classes of one image, best first, each with its name, index and probability."""
        best = np.argsort(-probabilities, kind="stable")[:count]
        return [
            {"class": self.class_names[index], "index": int(index), "probability": float(probabilities[index])}
            for index in best
        ]


@dataclass(frozen=True)
class Opened:
    """A model, and how its user wants it to be fed; `open_model` makes one.

    Attributes:
        name: name of the zoo or path that it was opened by.
        model: a Keras model or a LiteRT file.
        output: meaning of the numbers that it gives.
        image_size: height and width, where the user chose them.
        pixels: way in which a picture becomes an image.
    """

    name: str
    model: keras.Model | LiteRTModel
    output: Output
    image_size: int | None
    pixels: Pixels

    @property
    def shape(self) -> tuple[int | None, int | None, int]:
        """(height, width, channels) of the images that the model takes, None where it takes any."""
        shape: tuple[Any, ...]
        if isinstance(self.model, LiteRTModel):
            shape = self.model.input_shape
        elif len(self.model.inputs) == 1:
            shape = tuple(self.model.inputs[0].shape)
        else:
            raise InvalidValueError(
                f"{self.name} has {len(self.model.inputs)} inputs and {len(self.model.outputs)} outputs; a model from "
                "images alone to classes alone, or to maps of classes, is needed"
            )
        if len(shape) != 4:
            raise InvalidValueError(f"{self.name} takes {shape}, no images (images, height, width, channels)")
        _, height, width, channels = shape
        return height, width, channels

    @property
    def output_shape(self) -> tuple:
        """Shape of the outputs, for people; what they mean is told by `output`."""
        if isinstance(self.model, LiteRTModel):
            return tuple(map(int, self.model.output["shape"]))
        return tuple(self.model.outputs[0].shape)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images that it gets."""
        return _fixed(self.shape, self.image_size, self.name)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; where nobody knows them, their numbers."""
        return display_names(self.output)


def open_model(
    model: str,
    *,
    weights: str | None = None,
    class_names_file: str | Path | None = None,
    values: Values | None = None,
    image_size: int | None = None,
    resize: Resize | None = None,
    crop: float | None = None,
    interpolation: Interpolation | None = None,
) -> Opened:
    """Builds or opens a model, whatever it tells of its images.

    Args:
        model: name of the zoo, or path of a `.keras` or `.tflite` file.
        weights: weights for a name of the zoo, as in `kzoo.build`; default: `"imagenet"`.
        class_names_file: text file with the name of a class on each line. Default: those of the card of a LiteRT
            file, those in the `report.json` of a run beside the file, ImageNet's for 1000 classes, or numbers.
        values: meaning of the outputs, `"softmax"`, `"sigmoid"` or `"logits"`, of a model that does not tell: its
            last layer is somebody's own, say.
        image_size: height and width, for a model that takes more than one size; default: the model's own.
        resize: as in `kzoo.images.Pixels`; default for this and the next two: as `kzoo.known_pixels` finds.
        crop: as in `kzoo.images.Pixels`.
        interpolation: as in `kzoo.images.Pixels`.

    Raises:
        UnknownNameError: no such model.
        WeightsError: the weights cannot be found or do not fit.
        InvalidValueError: a file that holds no model, or an impossible option.
    """
    if image_size is not None and image_size < 1:
        raise InvalidValueError(f"image_size={image_size} must be at least 1")
    Pixels().changed(resize, crop, interpolation)  # refuses what it does not know, before anything is opened
    class_names = None if class_names_file is None else read_class_names(Path(class_names_file))
    if model.endswith(FILES):
        if weights is not None:
            raise InvalidValueError(f"{model} has its own weights; weights go with a name of the zoo")
        if model.endswith(".tflite"):
            card = read_card(model)  # first, as it knows whether the file is damaged
            opened = LiteRTModel(model, answer=card.answer if card else None)
        else:
            opened = load_keras(model)
    elif Path(model).suffix == ".onnx" or (Path(model) / "saved_model.pb").exists():
        raise InvalidValueError(
            f"{model} is no .keras or .tflite file, which are read here; onnxruntime runs ONNX files, and TensorFlow "
            "SavedModels, as kzoo export says"
        )
    else:
        entry = lookup(model)
        if entry.task != CLASSIFICATION and weights is None:
            raise WeightsError(
                f"no checkpoint known for {model}; train one (kzoo train {TRAINED[entry.task]}, say) and give its "
                ".keras file, or give --weights FILE"
            )
        weights = weights or DEFAULT
        resolve(model, weights)  # refuses what cannot be found, before anything is built
        size = None if image_size is None else (image_size, image_size, entry.input_shape[2])
        opened = build(model, weights=weights, input_shape=size)
    output = known_output(model, opened, class_names, values)
    pixels = known_pixels(model, opened, weights, output.of_whole)
    return Opened(model, opened, output, image_size, pixels.changed(resize, crop, interpolation))


def open_classifier(model: str, **options) -> Classifier:
    """Builds or opens a classifier; takes what `open_model` takes.

    Raises:
        InvalidValueError: a file that is no classifier of images, and what `open_model` raises.

    Example:
        >>> open_classifier("resnet50").pixels.crop  # of the A1 recipe
        0.95
    """
    return as_classifier(open_model(model, **options))


def as_classifier(opened: Opened) -> Classifier:
    """The classifier that an opened model is.

    Raises:
        InvalidValueError: it is no classifier of images.
    """
    model, output = opened.model, opened.output
    if output.task != "classification":
        raise InvalidValueError(
            f"{opened.name} is no classifier: its output is {opened.output_shape} instead of (images, classes)"
        )
    output.check_known(opened.name)
    run = model.predict if isinstance(model, LiteRTModel) else partial(model.predict, batch_size=BATCH_SIZE, verbose=0)
    return Classifier(
        lambda images: output.probabilities(run(images)),
        opened.input_shape,
        opened.class_names,
        output.multi_label,
        opened.pixels,
    )


def load_keras(path: str | Path) -> keras.Model:
    """Opens a `.keras` file as `open_keras` does; auxiliary heads, which serve training alone, are left out.

    Raises:
        InvalidValueError: it is absent, no such file, or refused.
    """
    return without_auxiliary(open_keras(path))


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
        return classifier.pixels.read(path, classifier.input_shape)
    except InvalidValueError as error:
        return error
