"""Finding objects in pictures: boxes in the pixels of each picture, by a detector or by its LiteRT file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from kzoo.detection.suppression import RETINANET, Detections, Suppression
from kzoo.edge import LiteRTModel, read_card
from kzoo.errors import InvalidValueError
from kzoo.images import MODES, STRETCHED, Pixels, read_picture
from kzoo.images.reading import to_mode
from kzoo.last_operation import BOXES, SCORES
from kzoo.output import Output

BATCH_SIZE = 8
EXAMPLES = {"pixels": "kzoo.images.Pixels('pad')", "suppression": "kzoo.detection.FCOS"}


def detect(
    model: keras.Model | LiteRTModel,
    pictures: Sequence[str | Path | np.ndarray | Image.Image],
    pixels: Pixels = STRETCHED,
    suppression: Suppression | None = None,
) -> list[Detections]:
    """What a detector finds in pictures of any size.

    Each picture is fitted to the model's input, and of what the model says at all its places the best is kept, class
    by class, by torchvision's rules.

    Args:
        model: a detector of the zoo (`kzoo.build("fcos")`, say), or its LiteRT file.
        pictures: files, arrays (height, width, channels) of 0 to 255, or pictures of Pillow.
        pixels: how they are fitted: whole and stretched by default, or `Pixels("pad")` in their proportions.
        suppression: what is kept; default: that of the model (`Output.of_model(model).suppression`), which is
            torchvision's for its kind where nobody chose another, or of the card beside a file.

    Returns:
        Of each picture its `Detections`: boxes (n, 4) in its pixels (left, top, right, bottom), scores and classes.

    Raises:
        InvalidValueError: a model that gives no boxes and scores, no suppression for a file without a card,
            `Pixels("crop")`, or a picture that is none.

    Example:
        >>> found = kzoo.detect(model, ["cells.jpg"])[0]
        >>> found.boxes.shape, found.above(0.5).classes
        ((14, 4), array([1, 0, 0], dtype=int32))
    """
    if isinstance(pictures, (str, Path, Image.Image)) or not isinstance(pictures, (Sequence, np.ndarray)):
        raise InvalidValueError(f"pictures={pictures!r:.80} must be a list of files, arrays or pictures")
    for name, given, kind in (("pixels", pixels, Pixels), ("suppression", suppression, Suppression)):
        if not isinstance(given, kind) and (name == "pixels" or given is not None):
            raise InvalidValueError(f"{name}={given!r:.80} must be a {kind.__name__}, such as {EXAMPLES[name]}")
    pixels.check_whole("a detector", "tells where things are")
    output = _output(model)
    if suppression is None and isinstance(model, LiteRTModel):
        card = read_card(model.path) if model.path else None
        if card is None or not card.output.detects:
            raise InvalidValueError(
                "the file has no card that tells its kind; give suppression=kzoo.detection.FCOS or RETINANET"
            )
        output = card.output
    rule, shape = suppression or output.suppression or RETINANET, tuple(model.input_shape[1:])
    found: list[Detections] = []
    for start in range(0, len(pictures), BATCH_SIZE):
        some = [
            _as_picture(each, shape[2], f"picture {start + number}")
            for number, each in enumerate(pictures[start : start + BATCH_SIZE])
        ]
        outputs = run_detector(model, np.stack([pixels.apply(each, shape) for each in some]))
        for picture, boxes, scores in zip(some, outputs["boxes"], outputs["scores"], strict=True):
            found.append(rule(pixels.boxes_in_picture(boxes, picture.size, shape[:2]), scores))
    return found


def _output(model: Any) -> Output:
    """The meaning of a detector's outputs."""
    if not isinstance(model, keras.Model | LiteRTModel):
        raise InvalidValueError(f"model={model!r:.80} must be a keras.Model or a kzoo.edge.LiteRTModel")
    name = "the file" if isinstance(model, LiteRTModel) else model.name
    try:
        output = Output.of_file(model) if isinstance(model, LiteRTModel) else Output.of_model(model)
    except InvalidValueError:  # several outputs, and of another kind
        output = None
    if output is None or not output.detects:
        raise InvalidValueError(f"{name} gives no {BOXES} and {SCORES}; a detector does, such as kzoo.build('fcos')")
    return output


def run_detector(model: keras.Model | LiteRTModel, images: np.ndarray) -> dict[str, np.ndarray]:
    """Boxes and scores of a batch of images (n, height, width, channels) of 0 to 255."""
    given: dict[str, Any]
    if isinstance(model, LiteRTModel):
        given = model.predict_each(images)
    else:
        given = model.predict_on_batch(images.astype("float32"))
    return {name: np.asarray(given[name]) for name in (BOXES, SCORES)}


def _as_picture(given: Any, channels: int, name: str) -> Image.Image:
    if isinstance(given, (str, Path)):
        return read_picture(given, channels)
    if isinstance(given, Image.Image):
        return to_mode(given, MODES[channels], name=name)
    array = np.asarray(given)
    numbers = np.issubdtype(array.dtype, np.number) and array.ndim == 3 and array.shape[2] == channels and array.size
    if not numbers or not np.isfinite(array).all() or array.min() < 0 or array.max() > 255:
        raise InvalidValueError(
            f"{name} is an array of shape {array.shape} and type {array.dtype}; numbers of 0 to 255 (height, width, "
            f"{channels}) are needed"
        )
    whole = np.rint(array).astype("uint8")
    return Image.fromarray(whole if channels == 3 else whole[..., 0])
