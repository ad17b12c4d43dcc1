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
from kzoo.weights.specs import WeightsSpec


def known_pixels(
    model: str, opened: keras.Model | LiteRTModel, weights: str | None = None, of_whole: bool = False
) -> Pixels:
    """How a picture becomes the pixels of a model: by what it carries or its card, its run's report, its checkpoint.

    Where nobody tells, the centre of a picture is taken for a classifier, and the whole of it, stretched, for a model
    that gives maps or boxes.

    Args:
        model: path of a file, or a name of the zoo.
        opened: model that was opened.
        weights: weights for a name of the zoo, as in `kzoo.build`.
        of_whole: whether it says where in a picture things are (`Output.of_whole`).

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
        found = _of_run(Path(source)) if spec is None else _of_spec(spec, of_whole)
    return found or Pixels.default(of_whole)


def _of_spec(spec: WeightsSpec, of_whole: bool) -> Pixels:
    """How the pictures were brought to a public checkpoint."""
    return Pixels("stretch", 1.0, spec.interpolation) if of_whole else Pixels("crop", spec.crop, spec.interpolation)


def _of_run(model: Path) -> Pixels | None:
    """What the report of a run says, beside a model's file; None where there is none."""
    where, report = model.with_name("report.json"), read_report(model)
    if "pixels" not in report:
        return STRETCHED if "recipe" in report else None  # all that older runs did
    try:
        return Pixels.from_json(report["pixels"])
    except InvalidValueError as error:
        raise InvalidValueError(f"{where}: {error}; remove the file or train again") from error
