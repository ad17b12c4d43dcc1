"""What the output of a model means: derived once from its last operation, stored with it, and asked ever after.

>>> output = Output.of_model(kzoo.build("cifar_resnet20"))
>>> output.values, output.num_classes
('softmax', 10)
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol, get_args

import keras
import numpy as np
from scipy.special import softmax

from kzoo.detection.suppression import RETINANET, RULES, Suppression
from kzoo.errors import InvalidValueError, check_choice
from kzoo.flatten import all_layers
from kzoo.graph import has_graph
from kzoo.last_operation import (
    SCORES,
    SIGMOID,
    UNKNOWN,
    Values,
    carried_meaning,
    is_of_detector,
    last_values,
    scores_of,
)
from kzoo.layers import DecodeBoxes
from kzoo.layers.meaning import Meaning

Task = Literal["classification", "segmentation", "detection", "unknown"]
DETECTION: Final = "detection"
MOST_CLASSES = 100_000  # of a card or a report; ImageNet-21k has 21,843
LONGEST_NAME = 1000  # characters

# The last built-in op of a LiteRT file -> what it gives.
FILE_OPS: dict[str, Values] = {
    "SOFTMAX": "softmax",
    "LOG_SOFTMAX": "logits",  # its softmax is that of the logits
    "LOGISTIC": "sigmoid",
    "FULLY_CONNECTED": "logits",
    "CONV_2D": "logits",
    "DEPTHWISE_CONV_2D": "logits",
    "TRANSPOSE_CONV": "logits",
}


class File(Protocol):
    """A LiteRT file, as far as its output tells what it means."""

    @property
    def output(self) -> dict: ...

    @property
    def outputs(self) -> dict[str, Any]: ...

    def last_op(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Output:
    """What the output of a model means.

    Attributes:
        task: `"classification"`: (images, units), `"segmentation"`: (images, height, width, units), `"detection"`:
            boxes (images, places, 4) and scores (images, places, units) by these names, or `"unknown"`: a tensor of
            another rank.
        values: what the last operation gives: `"softmax"` along the last axis, a `"sigmoid"` for each unit,
            `"logits"`, or `"unknown"`.
        units: width of the last axis. One unit is that of the second of two classes, but in detection, where each
            unit is a class.
        class_names: one for each class, or None where nobody named them.
        suppression: what is kept of boxes and scores, in detection; default: RetinaNet's rules.

    Raises:
        InvalidValueError: a field that has another type, or a number of names that is not that of the classes.

    Example:
        >>> Output("classification", "sigmoid", 1, ("cat", "dog")).probabilities(np.array([[0.25]]))
        array([[0.75, 0.25]])
    """

    task: Task
    values: Values
    units: int
    class_names: tuple[str, ...] | None = None
    suppression: Suppression | None = None

    def __post_init__(self):
        check_choice("task", self.task, get_args(Task))
        check_choice("values", self.values, get_args(Values))
        if type(self.units) is not int or not 1 <= self.units <= MOST_CLASSES:
            raise InvalidValueError(f"units={self.units!r} must be an integer from 1 to {MOST_CLASSES}")
        if self.class_names is not None:
            object.__setattr__(self, "class_names", _check_names(self.class_names, self.num_classes))
        if self.task != DETECTION and self.suppression is not None:
            raise InvalidValueError(f"suppression={self.suppression!r} is of detection, and task is {self.task!r}")
        if self.task == DETECTION:
            if self.values != SIGMOID:
                raise InvalidValueError(f"values={self.values!r} is not accepted: scores of boxes are 'sigmoid'")
            if not isinstance(self.suppression, Suppression | None):
                raise InvalidValueError(f"suppression={self.suppression!r:.80} must be a kzoo.detection.Suppression")
            object.__setattr__(self, "suppression", self.suppression or RETINANET)

    @property
    def num_classes(self) -> int:
        """Number of classes; one unit tells two of them apart, but in detection."""
        return self.units if self.detects else max(2, self.units)

    @property
    def detects(self) -> bool:
        """Whether it says which boxes are in an image."""
        return self.task == DETECTION

    @property
    def of_whole(self) -> bool:
        """Whether it says where in an image things are, so that none of a picture may be left out."""
        return self.task in ("segmentation", DETECTION)

    @property
    def multi_label(self) -> bool:
        """Whether each class of an image is there or not, whatever the others are: several sigmoids.

        A pixel has one class, the one whose sigmoid is largest.
        """
        return self.task == "classification" and self.values == "sigmoid" and self.units > 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, or their numbers."""
        return self.class_names or tuple(map(str, range(self.num_classes)))

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Probabilities (..., num_classes) for outputs (..., units).

        They sum to 1, except those of independent sigmoids, which stay as they are.

        Raises:
            InvalidValueError: nobody knows what the values are.
        """
        self.check_known()
        outputs = np.asarray(outputs)
        if self.units == 1 and not self.detects:
            second = _sigmoid(outputs) if self.values == "logits" else outputs
            return np.concatenate([1 - second, second], axis=-1)
        return softmax(outputs, axis=-1) if self.values == "logits" else outputs

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """The most probable class of outputs (..., units) as indices (...); of several labels a 0 or 1 for each.

        In detection these are the scores, whose best class each place has.

        Raises:
            InvalidValueError: one unit of unknown values, whose threshold nobody knows.
        """
        outputs = np.asarray(outputs)
        if self.multi_label:
            return (outputs >= 0.5).astype("int64")
        if self.units > 1 or self.detects:
            return outputs.argmax(axis=-1)
        self.check_known()
        return (outputs[..., 0] >= (0.0 if self.values == "logits" else 0.5)).astype("int64")

    @property
    def decides(self) -> bool:
        """Whether `decide` knows the answer: the largest of several units, whatever they are, or a known threshold."""
        return self.units > 1 or self.values != UNKNOWN

    def check_known(self, model: str = "the model") -> None:
        """Raises `InvalidValueError`, which tells what to do, if nobody knows what the values are."""
        if self.values == UNKNOWN:
            raise InvalidValueError(
                f"{model} does not tell whether its outputs are probabilities or logits; say --values softmax, "
                "sigmoid or logits; in Python values=, or an Output of the card"
            )

    def said(self, values: Values, model: str) -> "Output":
        """The same with the values that a user tells of a model which does not.

        Raises:
            InvalidValueError: the model knows better, or there are no such values.
        """
        check_choice("values", values, get_args(Values)[:-1])
        if self.values not in (values, UNKNOWN):
            raise InvalidValueError(f"values={values!r}: {model} ends in {self.values}; leave values out")
        return dataclasses.replace(self, values=values)

    def in_words(self) -> str:
        """What a number of the output means, for people."""
        if self.values == UNKNOWN:
            return "unknown"
        of, together = "each class", "they sum to 1"
        if self.detects:
            return "score of each class at each place, each by itself; the box of the place is that of `boxes`"
        if self.units == 1:
            of, together = f"{self.names[1]!r} against {self.names[0]!r}", "from one half on it is the former"
        elif self.values == "sigmoid":
            together = "each by itself"
        kind = "logit, not probability," if self.values == "logits" else "probability"
        return f"{kind} of {of}" + ("" if self.values == "logits" else f"; {together}")

    def named(self, class_names: Sequence[str] | None) -> "Output":
        """The same with these names."""
        return dataclasses.replace(self, class_names=None if class_names is None else tuple(class_names))

    @classmethod
    def of_model(cls, model: keras.Model, class_names: Sequence[str] | None = None) -> "Output":
        """What the output of a Keras model means: what it carries (`kzoo.with_classes`), and its last operation.

        Dropout, identities, averages, resizing and reshaping behind it are looked through, and so are models inside
        the model and wrappers. The values of a subclassed model are `"unknown"`.

        Raises:
            InvalidValueError: several outputs, an output without a width, or a model that carries what cannot be.
        """
        outputs = getattr(model, "outputs", None) or []
        detector = scores_of(model)
        several = len(outputs) != 1 or isinstance(getattr(model, "output", None), (dict, list, tuple))
        if several and detector is None:
            raise InvalidValueError(
                f"{model.name} has {len(outputs)} outputs (a subclassed model has none); a model with one is needed: "
                "keras.Model(model.inputs, the output that counts), or keras.Model(image, model(image)) with "
                "image = keras.Input(shape)"
            )
        if detector is not None:
            output = cls(DETECTION, SIGMOID, int(detector.output.shape[-1]), suppression=_rules(model))
        else:
            shape = tuple(outputs[0].shape)
            output = _make(shape, last_values(model) if has_graph(model) else UNKNOWN, model.name)
        if meaning := carried_meaning(model):
            output = _carried(output, meaning, model.name)
        return output if class_names is None else output.named(class_names)

    @classmethod
    def of_file(cls, file: File, class_names: Sequence[str] | None = None) -> "Output":
        """What the output of a LiteRT file means, read from its last op; a card knows more, ask it first."""
        shapes = {name: tuple(int(size) for size in detail["shape"]) for name, detail in file.outputs.items()}
        if is_of_detector(shapes):
            return cls(DETECTION, SIGMOID, shapes[SCORES][-1]).named(class_names)
        shape = tuple(int(size) for size in file.output["shape"])
        return _make(shape, FILE_OPS.get(file.last_op(), UNKNOWN), "the file").named(class_names)

    def to_json(self) -> dict:
        """The fields as JSON values."""
        told = dataclasses.asdict(self) | {"class_names": None if self.class_names is None else [*self.class_names]}
        del told["suppression"]
        return told if self.suppression is None else told | {"suppression": self.suppression.to_json()}

    @classmethod
    def from_json(cls, value: object) -> "Output":
        """Reads what `to_json` gives, whoever wrote it; other fields are left alone.

        Raises:
            InvalidValueError: a field that lacks or cannot be.
        """
        if not isinstance(value, dict):
            raise InvalidValueError(f"an output must be a JSON object, not {type(value).__name__}")
        fields = [field.name for field in dataclasses.fields(cls) if field.name != "suppression"]
        lacking = [name for name in fields if name not in value]
        if lacking:
            raise InvalidValueError(f"the output lacks {', '.join(lacking)}")
        rules = value.get("suppression")
        suppression = None if rules is None else Suppression.from_json(rules)
        return cls(**{name: value[name] for name in fields}, suppression=suppression)


def _rules(model: keras.Model) -> Suppression:
    """What is kept of what a detector gives: torchvision's rules of its kind, level by level."""
    decoder = next((layer for layer in all_layers(model) if isinstance(layer, DecodeBoxes)), None)
    if decoder is None:
        return RETINANET
    return dataclasses.replace(RULES[decoder.kind], level_sizes=decoder.places.level_sizes)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(logits / 2))  # exp would overflow


def _make(shape: tuple, values: Values, model: str) -> Output:
    """The output of this shape, the first axis of which are images."""
    if len(shape) < 2:  # one number without an axis of classes
        return Output(UNKNOWN, UNKNOWN, 1)
    if not shape[-1]:
        raise InvalidValueError(f"{model} gives outputs of shape {shape}; the last axis must have a width")
    tasks: dict[int, Task] = {2: "classification", 4: "segmentation"}
    return Output(tasks.get(len(shape), UNKNOWN), values, int(shape[-1]))


def _carried(own: Output, meaning: Meaning, model: str) -> Output:
    """What a model tells of its output in words, where that can be; its graph knows better what the values are."""
    where = f"layer {meaning.name!r} of {model}"
    try:
        told = Output.from_json(meaning.output_fields)
    except InvalidValueError as error:
        raise InvalidValueError(f"{where} cannot be right: {error}") from error
    if (told.task, told.units) != (own.task, own.units):
        raise InvalidValueError(
            f"{where} tells of {told.units} units for {told.task}, and the model gives {own.units} for {own.task}; "
            "name its classes anew with kzoo.with_classes"
        )
    return told if own.values == UNKNOWN else dataclasses.replace(told, values=own.values)


def _check_names(names: object, count: int) -> tuple[str, ...]:
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise InvalidValueError("class_names must be a list of texts")
    if len(names) != count:
        raise InvalidValueError(f"class_names has {len(names)} names for {count} classes")
    if any(len(name) > LONGEST_NAME for name in names):
        raise InvalidValueError(f"class_names has a name of more than {LONGEST_NAME} characters")
    if lost := [
        name for name in names if not name.isprintable() and any("\ud800" <= sign <= "\udfff" for sign in name)
    ]:
        raise InvalidValueError(f"class_names has {lost[0]!r}, half a character, which no file can hold")
    return tuple(names)
