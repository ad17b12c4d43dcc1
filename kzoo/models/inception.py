"""What GoogLeNet and Inception v3 share: the end of a module, and auxiliary heads.

A model built with `auxiliary=True` has a dict of outputs, `"head"` and `"auxiliary1"` and so on, to be trained
together; `kzoo.export` leaves the auxiliary ones out, and so does `without_auxiliary`:

    model = kzoo.build("googlenet", auxiliary=True)
    weights = loss_weights(model)  # {"auxiliary1": 0.3, "auxiliary2": 0.3, "head": 1.0}
    losses = dict.fromkeys(weights, "sparse_categorical_crossentropy")
    model.compile("sgd", losses, loss_weights=weights)
    model.fit(images, dict.fromkeys(weights, labels))
    without_auxiliary(model).predict(images)  # (batch, classes), with the weights just trained
"""

import dataclasses
import math
from collections.abc import Callable

import keras

from kzoo.errors import InvalidValueError
from kzoo.layers import DepthConcat
from kzoo.models.blocks import head_activation, pool
from kzoo.models.slots import attend, check_attention, slot_of

AUXILIARY_WEIGHT = 0.3
"""Share of an auxiliary head in the training loss (arXiv:1409.4842, section 5)."""


def check_config(config) -> None:
    """Checks the fields that both families' configs have: flags, rates of dropout, width and attention."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type is bool and not isinstance(value, bool):
            raise InvalidValueError(f"{field.name}={value!r} must be True or False")
        if field.name.endswith("dropout") and not (_is_number(value) and 0 <= value < 1):
            raise InvalidValueError(f"{field.name}={value!r} must be a number of at least 0 and below 1")
    if not (_is_number(config.width) and 0 < config.width < math.inf):
        raise InvalidValueError(f"width={config.width!r} must be a positive number; 1.0 is the published model")
    check_attention(config.attention)
    if slot_of(config.attention) not in (None, "branch"):
        raise InvalidValueError(
            f"attention={config.attention!r} goes into a {slot_of(config.attention)!r} slot, which inception networks "
            "do not have; use one that weighs a map, such as 'se' or 'cbam'"
        )


def check_modules(modules: tuple[str, ...], known: tuple[str, ...], needed: tuple[str, ...]) -> None:
    """Checks that `modules` are some of the `known`, in order, with the `needed` ones and one of each stage."""
    ordered = isinstance(modules, (tuple, list)) and [name for name in known if name in modules] == list(modules)
    stages = {name[0] for name in known}
    if not ordered or {name[0] for name in modules} != stages or not set(needed) <= set(modules):
        raise InvalidValueError(
            f"modules={modules!r} must be some of {', '.join(known)}, in this order, with one or more of each stage"
            + (f" and with {' and '.join(needed)}" if needed else "")
        )


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def scaled(filters: int, width: float) -> int:
    """`filters` times `width`, rounded, at least 1."""
    return max(1, round(filters * width))


def join(branches: list, attention: str | Callable | None, name: str):
    """Ends a module: the branches' filters side by side, then attention.

    Every branch of these networks gives maps of one size. `DepthConcat` must know it; where images may be of any
    size a plain concatenation takes its place.
    """
    known = None not in branches[0].shape[1:3]
    x = (DepthConcat if known else keras.layers.Concatenate)(name=f"{name}_concat")(branches)
    return attend(x, attention, f"{name}_attention")


def dropout(x, rate: float, name: str):
    """Dropout, or nothing for a rate of 0."""
    return keras.layers.Dropout(rate, name=name)(x) if rate else x


def classifier(x, num_classes: int, activation, name: str):
    """A dense layer on vectors, and the activation."""
    x = keras.layers.Dense(num_classes, name=f"{name}_dense")(x)
    return head_activation(x, activation, name=f"{name}_activation")


def main_head(x, num_classes: int, activation, rate: float):
    """Global average pooling of a map, dropout and the classifier."""
    return classifier(dropout(pool(x), rate, "head_dropout"), num_classes, activation, "head")


def check_known_size(x) -> None:
    """Raises `InvalidValueError` for images of unknown size, which auxiliary heads cannot read."""
    if None in x.shape[1:3]:
        raise InvalidValueError(
            f"auxiliary=True needs images of known height and width, got shape {tuple(x.shape)}: their dense layers "
            "read every pixel of a map; build with an input_shape"
        )


def loss_weights(model: keras.Model) -> dict[str, float]:
    """What `model.compile(loss_weights=...)` takes for a model with auxiliary heads: 1 for the main one, else 0.3.

    Raises:
        InvalidValueError: the model has one output.
    """
    if not _has_auxiliary(model):
        raise InvalidValueError(f"{model.name} has no auxiliary heads; build it with auxiliary=True")
    return {name: 1.0 if name == "head" else AUXILIARY_WEIGHT for name in model.output}


def without_auxiliary(model: keras.Model) -> keras.Model:
    """The model from the images to the main head's output alone, sharing the weights of `model`.

    A model without auxiliary heads is returned as it is.

    Example:
        >>> model = kzoo.build("googlenet", auxiliary=True)
        >>> without_auxiliary(model).output_shape
        (None, 1000)
    """
    if not _has_auxiliary(model):
        return model
    return keras.Model(model.input, model.output["head"], name=model.name)


def _has_auxiliary(model) -> bool:
    output = getattr(model, "output", None)  # subclassed models have none
    return isinstance(output, dict) and "head" in output and any(name.startswith("auxiliary") for name in output)
