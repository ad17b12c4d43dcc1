"""What a model carries in itself of its classes and of the way from a picture to its input."""

import dataclasses
from collections.abc import Sequence

import keras

from kzoo.detection.suppression import Suppression
from kzoo.errors import InvalidValueError
from kzoo.images import Pixels
from kzoo.last_operation import BOXES, SCORES, carried_meaning
from kzoo.layers.meaning import Meaning
from kzoo.output import Output, Values


def with_classes(
    model: keras.Model,
    class_names: Sequence[str],
    pixels: Pixels | None = None,
    values: Values | None = None,
    suppression: Suppression | None = None,
) -> keras.Model:
    """The model with names for its classes, which its files, copies and exports carry from then on.

    Layers and weights are shared with `model`; compile the result before training it.

    Args:
        model: functional or sequential model with one output: (n, units), or (n, height, width, units) for a class of
            each pixel; or a detector, whose scores carry them. Names that it has are replaced.
        class_names: name of each class, in the order of the output; two for one unit, the second of which it is.
        pixels: way from a picture to the model's input. Default: the one that it carries, if any.
        values: what the output is, of a model whose last layer does not tell: `"softmax"`, `"sigmoid"` or `"logits"`.
        suppression: what is kept of a detector's boxes. Default: what it carries, if anything, or its kind's rules.

    Returns:
        A model with an identity more, whose outputs are the same. To load its `.keras` file, import kzoo first.

    Raises:
        InvalidValueError: another number of names, several outputs, or a model without a graph.

    Example:
        >>> model = kzoo.with_classes(kzoo.build("resnet18", num_classes=2), ["cat", "dog"], Pixels("pad"))
        >>> model.save("pets.keras")  # `kzoo predict pets.keras photo.jpg` names cats and dogs
    """
    output = Output.of_model(model)
    if not getattr(model, "inputs", None):
        raise InvalidValueError(f"{model.name} has no graph of layers; a functional or sequential model is needed")
    if values is not None:
        output = output.said(values, model.name)
    if suppression is not None:
        output = dataclasses.replace(output, suppression=suppression)
        suppression.check_places(model.output[BOXES].shape[1], model.name)
    pixels = pixels or carried_pixels(model)
    before = sum(isinstance(layer, Meaning) for layer in model.layers)
    told = output.named(class_names).to_json(), pixels.to_json() if pixels else None
    meaning = Meaning(*told, name=f"meaning_{before}" if before else "meaning")
    if output.detects:
        return keras.Model(model.input, {**model.output, SCORES: meaning(model.output[SCORES])}, name=model.name)
    return keras.Model(model.input, meaning(model.outputs[0]), name=model.name)


def carried_pixels(model: keras.Model) -> Pixels | None:
    """The way from a picture to the model's input that the model carries, if it does.

    Raises:
        InvalidValueError: what it carries cannot be.
    """
    meaning = carried_meaning(model)
    if meaning is None or meaning.pixel_fields is None:
        return None
    try:
        return Pixels.from_json(meaning.pixel_fields)
    except InvalidValueError as error:
        raise InvalidValueError(f"layer {meaning.name!r} of {model.name} cannot be right: {error}") from error
