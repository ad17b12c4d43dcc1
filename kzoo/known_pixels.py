"""How pictures were brought to a model when it was trained or measured."""

from pathlib import Path

import keras

from kzoo.class_names import FILES
from kzoo.edge import LiteRTModel, read_card
from kzoo.errors import InvalidValueError
from kzoo.images import STRETCHED, Pixels
from kzoo.meaning import carried_pixels
from kzoo.reading import read_report
from kzoo.weights import resolve


def known_pixels(
    model: str, opened: keras.Model | LiteRTModel, weights: str | None = None, segments: bool = False
) -> Pixels:
    """How a picture becomes the pixels of a model: by what it carries or its card, its run's report, its checkpoint.

    Where nobody tells, the centre of a picture is taken for a classifier, and the whole of it, stretched, for a model
    that gives maps.

    Args:
        model: path of a file, or a name of the zoo.
        opened: model that was opened.
        weights: weights for a name of the zoo, as in `kzoo.build`.
        segments: whether the model gives a class for each pixel.

    Raises:
        InvalidValueError: a card or report that cannot be right.
    """
    if isinstance(opened, keras.Model) and (found := carried_pixels(opened)):
        return found
    if model.endswith(FILES):
        card = read_card(model) if model.endswith(".tflite") else None
        found = card.pixels if card else _of_run(Path(model))
    elif weights is None:
        found = None
    else:
        source, spec = resolve(model, weights)
        found = Pixels("crop", spec.crop, spec.interpolation) if spec else _of_run(Path(source))
    return found or Pixels.default(segments)


def _of_run(model: Path) -> Pixels | None:
    """What the report of a run says, beside a model's file; None where there is none."""
    where, report = model.with_name("report.json"), read_report(model)
    if "pixels" not in report:
        return STRETCHED if "recipe" in report else None  # all that older runs did
    try:
        return Pixels.from_json(report["pixels"])
    except InvalidValueError as error:
        raise InvalidValueError(f"{where}: {error}; remove the file or train again") from error
