"""Maps by hiding parts of a picture: no gradients, so that the file that is deployed can be explained too."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from PIL import Image

from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.explain.cams import as_array, as_maps, as_tensor, logits_of, map_place, number_type
from kzoo.explain.layers import over_image
from kzoo.explain.replay import Replay
from kzoo.explain.targets import Difference, Region, Score, Target, score_of
from kzoo.last_operation import BOXES, SCORES, is_of_detector, scores_of
from kzoo.layers.checks import check_number, check_seed, is_integer

MOST, PIXELS = 32, 32 * 224**2  # variants of a picture that are computed together, and their pixels
Outputs = Callable[[np.ndarray], Any]  # images -> what a model gives: an array, of a detector arrays by name
Scored = Callable[[np.ndarray], np.ndarray]  # variants (k, height, width, channels) of one image -> scores (k,)


def occlusion(
    model: keras.Model | LiteRTModel,
    images: np.ndarray,
    target: Target = None,
    size: int | None = None,
    stride: int | None = None,
    value: float | None = None,
) -> np.ndarray:
    """How much a score falls where a grey square hides the picture.

    Zeiler and Fergus 2014 (arXiv:1311.2901, section 4.2). Each pixel has the mean over all squares that hide it.

    Args:
        model: functional or Sequential model, or a `kzoo.edge.LiteRTModel`, of which the numbers that it gives are
            explained, probabilities mostly.
        images: (n, height, width, channels).
        target: as in `kzoo.grad_cam`.
        size: side of the square in pixels; default: an eighth of the shorter side of the picture.
        stride: pixels from one square to the next; default: half of the size.
        value: what the square is filled with; default: the mean of the image.

    Returns:
        (n, height, width), signed: positive where the picture speaks for the target.

    Raises:
        InvalidValueError: as `kzoo.grad_cam`, or a square of no size, or squares with room between them.

    Example:
        >>> occlusion(kzoo.edge.LiteRTModel("model_int8.tflite"), images).shape
        (8, 224, 224)
    """
    if any(number is not None and not is_integer(number, 1) for number in (size, stride)):
        raise InvalidValueError(f"size={size!r} and stride={stride!r} must be positive integers of pixels")
    _check_value(value)
    images = as_array(images)
    height, width = images.shape[1:3] if images.ndim == 4 else (1, 1)
    size = size or max(1, min(height, width) // 8)
    stride = stride or max(1, size // 2)
    if stride > size:
        raise InvalidValueError(f"stride={stride} must be at most size={size}, or no square hides what lies between")
    corners = [(y, x) for y in _starts(height, size, stride) for x in _starts(width, size, stride)]
    maps = []
    for image, scored in scorers(model, images, target):
        (whole,) = scored(image[None])
        fill = image.mean() if value is None else value
        total, count = np.zeros((2, height, width), "float32")
        for chosen in batched(corners, image.shape):
            hidden = np.repeat(image[None], len(chosen), axis=0)
            for each, (y, x) in zip(hidden, chosen, strict=True):
                each[y : y + size, x : x + size] = fill
            for score, (y, x) in zip(scored(hidden), chosen, strict=True):
                total[y : y + size, x : x + size] += whole - score
                count[y : y + size, x : x + size] += 1
        maps.append(total / count)
    return np.stack(maps)


def rise(
    model: keras.Model | LiteRTModel,
    images: np.ndarray,
    target: Target = None,
    masks: int = 1000,
    cells: int = 7,
    keep: float = 0.5,
    seed: int = 0,
    value: float | None = 0.0,
) -> np.ndarray:
    """How a score depends on which parts of the picture are seen, over random masks.

    `1 / (N p) sum over i of S(x · M_i) M_i` (Petsiuk et al. 2018, arXiv:1806.07421, eq. 6) with smooth masks of
    section 3.2, and with the mean of all scores taken off, which makes the map signed and less noisy: logits have no
    zero of their own.

    Args:
        model: as in `occlusion`; so are `images` and `target`.
        images: (n, height, width, channels).
        target: what is explained.
        masks: number of random masks, the same for all images.
        cells: side of the grid that the masks are enlarged from.
        keep: probability that a cell is seen.
        seed: of the masks.
        value: what hidden places fade to: black, as in the equation; None: the mean of the image. Take it where black
            is a colour that says something, as a stained nucleus does.

    Returns:
        (n, height, width), signed.

    Raises:
        InvalidValueError: as `kzoo.grad_cam`, no masks, no cells, or a probability that is none.

    Example:
        >>> rise(model, images, masks=500).shape
        (8, 224, 224)
    """
    if not is_integer(masks, 2) or not is_integer(cells, 1):
        raise InvalidValueError(f"masks={masks!r} must be an integer of at least 2, cells={cells!r} of at least 1")
    check_number("keep", keep, lambda value: 0 < value < 1, "between 0 and 1")
    check_seed(seed)
    _check_value(value)
    maps = []
    for image, scored in scorers(model, images, target):
        rng, scores = np.random.default_rng(seed), []
        total, seen = np.zeros((2, *image.shape[:2]))  # of masks times their scores, and of the masks
        fill = image.mean() if value is None else value
        for numbers in batched(range(masks), image.shape):
            some = _random_masks(rng, len(numbers), cells, keep, image.shape[:2])
            scores.append(scored(fill + (image - fill) * some[..., None]).astype("float64"))
            total += np.tensordot(scores[-1], some, 1)
            seen += some.sum(axis=0)
        maps.append((total - np.concatenate(scores).mean() * seen) / (masks * keep))
    return np.stack(maps).astype("float32")


def score_cam(model: keras.Model, images: np.ndarray, target: Target = None, layer: str | None = None) -> np.ndarray:
    """Channels of a feature map weighted by the score of the picture as that channel shows it, without gradients.

    `L = sum over k of softmax_k(S(x · H_k)) A_k`, with H_k the channel enlarged to the picture and scaled from 0 to 1
    (Wang et al. 2020, arXiv:1910.01279, algorithm 1). A channel that is the same everywhere has no weight. Takes and
    raises what `kzoo.grad_cam` does.

    Example:
        >>> score_cam(model, images, layer="p4").shape
        (8, 14, 14)
    """
    replay = Replay(model)
    place = map_place(replay, layer, target)
    (features,) = replay.run(as_tensor(model, images), [place])
    maps = as_maps(features, replay, place)
    found = []
    for (image, scored), channels in zip(scorers(model, images, target, replay), maps, strict=True):
        low, high = channels.min(axis=(0, 1)), channels.max(axis=(0, 1))
        telling = np.flatnonzero(high > low)
        scores = []
        for some in batched(telling, image.shape):
            scaled = (channels[..., some] - low[some]) / (high[some] - low[some])
            shown = over_image(np.moveaxis(scaled, -1, 0), replay, place)
            masks = np.stack([enlarged(each, image.shape[:2]) for each in shown])
            scores.append(scored(image * masks[..., None]))
        weights = np.concatenate(scores) if scores else np.zeros(0)
        weights = np.exp(weights - weights.max(initial=-np.inf))
        found.append((channels[..., telling] * (weights / max(weights.sum(), 1e-30))).sum(axis=-1))
    return over_image(np.stack(found), replay, place).astype("float32")


def batched(items: Sequence | np.ndarray, shape: tuple[int, ...]) -> list:
    """The items in parts, of as many as variants of an image of a shape (height, width, ...) are computed together.

    >>> [len(part) for part in batched(range(100), (224, 224, 3))], len(batched(range(100), (512, 512, 3))[0])
    ([32, 32, 32, 4], 6)
    """
    size = max(1, min(MOST, PIXELS // (shape[0] * shape[1])))
    return [items[start : start + size] for start in range(0, len(items), size)]


def scorers(
    model: keras.Model | LiteRTModel, images: np.ndarray, target: Target, replay: Replay | None = None
) -> Iterator[tuple[np.ndarray, Scored]]:
    """Each image as float32, with the function that scores variants of it.

    Of a detector these are the scores of `kzoo.explain.boxes.similarity`; with `replay` they are of logits.
    """
    name = "the file" if isinstance(model, LiteRTModel) else getattr(model, "name", "the model")
    if replay is None and finds_boxes(model) and not callable(target):
        return each_scored(box_outputs(model), as_pixels(model, images), target, name)
    if isinstance(model, LiteRTModel):
        return each_scored(model.predict, as_pixels(model, images), target, name)
    opened = replay or Replay(model)

    def outputs(batch: np.ndarray) -> np.ndarray:
        return logits_of(opened, as_tensor(model, batch))

    return each_scored(outputs, as_pixels(model, images), target, name)


def finds_boxes(model: keras.Model | LiteRTModel) -> bool:
    """Whether a model is a detector."""
    if isinstance(model, LiteRTModel):
        return is_of_detector({name: tuple(detail["shape"]) for name, detail in model.outputs.items()})
    return scores_of(model) is not None


def box_outputs(model: keras.Model | LiteRTModel) -> Outputs:
    """The function from images (n, height, width, channels) to a detector's `boxes` and `scores`."""
    if isinstance(model, LiteRTModel):
        return model.predict_each
    dtype = number_type(model)

    def outputs(batch: np.ndarray) -> dict[str, np.ndarray]:
        found = model(keras.ops.convert_to_tensor(batch.astype(dtype)), training=False)
        return {name: keras.ops.convert_to_numpy(found[name]).astype("float32") for name in (BOXES, SCORES)}

    return outputs


def as_pixels(model: keras.Model | LiteRTModel, images: np.ndarray) -> np.ndarray:
    """Images (n, height, width, channels) in float32; raises `InvalidValueError` if they are none."""
    if isinstance(model, LiteRTModel):
        array = as_array(images).astype("float32")
    else:
        array = keras.ops.convert_to_numpy(as_tensor(model, images)).astype("float32")
    if array.ndim != 4 or len(array) == 0:
        raise InvalidValueError(f"images have shape {array.shape}; (n, height, width, channels) is needed")
    return array


def each_scored(
    outputs: Outputs, images: np.ndarray, target: Target, name: str
) -> Iterator[tuple[np.ndarray, Scored]]:
    """Each image, with the function that scores variants of it by what `outputs` gives for them."""
    several: Any = target if isinstance(target, (list, tuple, np.ndarray)) and np.ndim(target) > 0 else None
    if isinstance(target, str) or (several is not None and len(several) != len(images)):
        told = repr(target) if isinstance(target, str) else f"{len(several)} targets"
        raise InvalidValueError(
            f"{told}: the index of a class is needed, or one for each of the {len(images)} images; for other targets "
            "see kzoo.explain.Difference, Region, or give a function"
        )
    for index, image in enumerate(images):
        own = _of_image(target, index, len(images))
        yield image, _scored(outputs, score_of(own, outputs(image[None]), name))


def _scored(outputs: Outputs, score: Score) -> Scored:
    return lambda batch: keras.ops.convert_to_numpy(score(outputs(batch)))


def _of_image(target: Target, index: int, count: int) -> Any:
    """The target of one image of several."""
    if isinstance(target, Region) and target.mask is not None and np.ndim(target.mask) == 3:
        masks = np.asarray(target.mask)
        return Region(target.class_index, masks[index]) if len(masks) == count else target
    if isinstance(target, (Sequence, np.ndarray)) and not isinstance(target, (str, Difference)):
        return target[index] if len(target) == count else target
    return target


def _check_value(value: float | None) -> None:
    if value is not None:
        check_number("value", value, lambda number: True, "of the pixels' scale, such as 0")


def _starts(length: int, size: int, stride: int) -> list[int]:
    """Where squares begin, so that the last one ends at the border."""
    last = max(0, length - size)
    return sorted({*range(0, last + 1, stride), last})


def _random_masks(rng, count: int, cells: int, keep: float, shape: tuple[int, int]) -> np.ndarray:
    """Masks (count, height, width) of 0 to 1: random grids, enlarged and shifted by less than a cell."""
    height, width = shape
    tall, wide = -(-height // cells), -(-width // cells)
    masks = np.empty((count, height, width), "float32")
    for mask in masks:
        grid = (rng.random((cells + 1, cells + 1)) < keep).astype("float32")
        large = enlarged(grid, ((cells + 1) * tall, (cells + 1) * wide))
        top, left = rng.integers(tall), rng.integers(wide)
        mask[:] = large[top : top + height, left : left + width]
    return masks


def enlarged(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map (height, width) in the size of a picture, bilinearly."""
    return np.asarray(Image.fromarray(values.astype("float32")).resize(shape[::-1], Image.Resampling.BILINEAR))
