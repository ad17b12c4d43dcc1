"""Whether a map is any good: how well it tells what a model's answer depends on, in numbers with intervals."""

from typing import NamedTuple

import keras
import numpy as np
from scipy.integrate import trapezoid

from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.explain.cams import number_type
from kzoo.explain.hiding import deleted, falling, imputed, inserted
from kzoo.explain.perturbation import (
    Outputs,
    Scored,
    as_pixels,
    batched,
    box_outputs,
    each_scored,
    enlarged,
    scorers,
)
from kzoo.explain.targets import Difference, Target
from kzoo.layers.checks import check_seed, is_integer
from kzoo.output import Output

ROAD_SHARES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))  # of the pixels that are filled in
RESAMPLES = 2000


class Estimate(NamedTuple):
    """A number of each image (n,), their mean, and the interval that holds 95% of the means of resampled images.

    One image alone has no interval: `low` and `high` are NaN.
    """

    each: np.ndarray
    mean: float
    low: float
    high: float


class Judgement(NamedTuple):
    """What `judge_maps` measured.

    Attributes:
        measures: name -> `Estimate`.
        curves: name -> probabilities (n, points) of the target, of `"deletion"`, `"insertion"`, `"road_most"` and
            `"road_least"`.
        shares: name -> shares (points,) of the pixels that are gone, or back, at the points of each curve.
    """

    measures: dict[str, Estimate]
    curves: dict[str, np.ndarray]
    shares: dict[str, np.ndarray]


def judge_maps(
    model: keras.Model | LiteRTModel,
    images: np.ndarray,
    maps: np.ndarray,
    target: Target = None,
    where: np.ndarray | None = None,
    steps: int = 20,
    seed: int = 0,
) -> Judgement:
    """How well maps tell what a model's answer depends on.

    With Y the probability of the target:

    - `deletion`, `insertion`: area under Y while pixels become the mean of the picture, or come back into the blurred
      picture, most telling first (Petsiuk et al. 2018, arXiv:1806.07421, section 4.2). Less, and more, is better.
    - `road_most`, `road_least`: mean of Y with 10% to 90% of the pixels, most or least telling first, filled in from
      their neighbours (Rong et al. 2022, arXiv:2202.00449). Less, and more, is better.
    - `average_drop`, `average_increase`, `average_gain` of targets with a probability: max(0, Y - O) / Y, whether
      O > Y, and max(0, O - Y) / (1 - Y), with O the probability of the picture times the positive part of the map,
      which is scaled to a maximum of 1; of the first, less is better, of the others more
      (Chattopadhay et al. 2018, arXiv:1710.11063, section 4.1; the gain Zhang et al. 2024, arXiv:2301.07002).
    - `sparsity`: Gini index of the magnitudes, 0 where all are equal, almost 1 where one pixel has all (Chalasani et
      al. 2020, arXiv:1810.06583). Neither end is better by itself.
    - `pointing`, `energy`, with `where`: whether the largest value lies inside (Zhang et al. 2016, arXiv:1608.00507,
      without tolerance), and the share of the positive values that does (Wang et al. 2020, arXiv:1910.01279, eq. 7).

    Compare with `random_maps` and `gaussian_maps` on the same images; the interval of a difference is
    `mean_with_interval(a.measures[name].each - b.measures[name].each)`.

    Args:
        model: functional or Sequential model, or a `kzoo.edge.LiteRTModel`, whose answer is classes of an image or of
            its pixels, as probabilities or logits.
        images: (n, height, width, channels).
        maps: (n, height, width), signed; they are enlarged to the images bilinearly.
        target: as in `kzoo.grad_cam`. A class, one for all images or one for each, and a `Region`, whose probability
            is the mean over it, have a probability, and for that of a `Box` stands how much of it is still found
            (`kzoo.explain.boxes.similarity`); of a `Difference` and of a function Y is the score, of logits. Default:
            the most probable class.
        where: what the target covers: booleans (n, height, width), or boxes (n, 4) of pixels
            (left, top, right, bottom), of which right and bottom are outside.
        steps: number of steps of deletion and insertion.
        seed: of ROAD's noise and of the intervals.

    Raises:
        InvalidValueError: maps that do not fit the images or hold no numbers, outputs of unknown meaning, a place that
            holds no pixel, or what `kzoo.grad_cam` raises.

    Example:
        >>> judged = judge_maps(model, images, kzoo.grad_cam(model, images))
        >>> judged.measures["deletion"].mean, judged.curves["deletion"].shape
        (0.31, (100, 21))
    """
    pixels = as_pixels(model, images)
    shape = pixels.shape[:3]
    if not is_integer(steps, 1):
        raise InvalidValueError(f"steps={steps!r} must be a positive integer")
    if shape[1] * shape[2] < 2:
        raise InvalidValueError("images have one pixel; of maps of two at least it can be told which are better")
    check_seed(seed)
    large = _as_large(maps, shape)
    inside = None if where is None else _inside(where, shape)
    rows, name = [], "the file" if isinstance(model, LiteRTModel) else model.name
    targets = target if isinstance(target, (list, tuple)) else [target]
    probable = not any(isinstance(each, Difference) or callable(each) for each in targets)
    if probable:
        each = each_scored(probabilities_of(model, _told_output(model, name)), pixels, target, name)
    else:
        each = scorers(model, pixels, target)
    for values, (image, scored) in zip(large, each, strict=True):
        seen = _seen_through(image, values, scored) if probable else {}
        rows.append(_curves(image, values, scored, steps, seed) | seen)
    found = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    curves = {key: found.pop(key) for key in ("deletion", "insertion", "road_most", "road_least")}
    steps_at = np.linspace(0, 1, steps + 1)
    shares = {key: np.array(ROAD_SHARES) if key.startswith("road") else steps_at for key in curves}
    numbers = {key: trapezoid(curves[key], steps_at, axis=1) for key in ("deletion", "insertion")}
    numbers |= {key: curves[key].mean(axis=1) for key in ("road_most", "road_least")} | found
    numbers["sparsity"] = np.array([sparsity(each) for each in large])
    if inside is not None:
        numbers["pointing"] = inside.reshape(len(large), -1)[
            range(len(large)), large.reshape(len(large), -1).argmax(1)
        ]
        numbers["energy"] = np.array([energy_inside(*pair) for pair in zip(large, inside, strict=True)])
    return Judgement({key: mean_with_interval(each, seed) for key, each in numbers.items()}, curves, shares)


def mean_with_interval(values: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of one number for each image (n,), with its bootstrap interval of 95% (percentiles of 2000 resamples).

    Example:
        >>> better = mean_with_interval(rise.measures["insertion"].each - random.measures["insertion"].each)
        >>> better.low > 0
        True
    """
    try:
        values = np.asarray(values, "float64")
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"values of type {type(values).__name__} are no numbers (n,)") from error
    if values.ndim != 1 or not len(values):
        raise InvalidValueError(f"values have shape {values.shape}; a number for each image, (n,), is needed")
    if len(values) < 2:
        return Estimate(values, float(values.mean()), float("nan"), float("nan"))
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return Estimate(values, float(values.mean()), float(low), float(high))


def sparsity(values: np.ndarray) -> float:
    """Gini index of the magnitudes of a map: `1 - 2 sum over k of v_k / sum(v) · (N - k + 1/2) / N`, v rising."""
    rising = np.sort(np.abs(values.ravel()).astype("float64"))
    if not rising[-1]:
        return 0.0
    ranks = np.arange(1, rising.size + 1)
    return float(1 - 2 * (rising / rising.sum() * (rising.size - ranks + 0.5) / rising.size).sum())


def energy_inside(values: np.ndarray, inside: np.ndarray) -> float:
    """The share of the positive values of a map that lies inside; 0 if none is positive."""
    positive = np.maximum(values, 0)
    return float(positive[inside].sum() / positive.sum()) if positive.any() else 0.0


def probabilities_of(model: keras.Model | LiteRTModel, output: Output) -> Outputs:
    """The function from images (n, height, width, channels) to the probabilities that a model's output means.

    Of a detector it gives boxes and scores, of which `kzoo.explain.boxes.similarity` is asked.
    """
    if output.detects:
        return box_outputs(model)
    if isinstance(model, LiteRTModel):
        return lambda batch: output.probabilities(model.predict(batch))
    dtype = number_type(model)

    def probabilities(batch: np.ndarray) -> np.ndarray:
        outputs = model(keras.ops.convert_to_tensor(batch.astype(dtype)), training=False)
        return output.probabilities(keras.ops.convert_to_numpy(outputs).astype("float32"))

    return probabilities


def _told_output(model: keras.Model | LiteRTModel, name: str) -> Output:
    output = Output.of_file(model) if isinstance(model, LiteRTModel) else Output.of_model(model)
    output.check_known(name)
    return output


def _curves(image: np.ndarray, values: np.ndarray, scored: Scored, steps: int, seed: int) -> dict[str, np.ndarray]:
    order, size = falling(values), values.size
    counts = [round(step / steps * size) for step in range(steps + 1)]
    most = [min(max(1, round(share * size)), size - 1) for share in ROAD_SHARES]
    variants = {
        "deletion": deleted(image, order, counts),
        "insertion": inserted(image, order, counts),
        "road_most": imputed(image, order, most, seed),
        "road_least": imputed(image, order[::-1], most, seed),
    }
    scores = _in_batches(scored, np.concatenate(list(variants.values())))
    ends = np.cumsum([len(each) for each in variants.values()])
    return dict(zip(variants, np.split(scores, ends[:-1]), strict=True))


def _seen_through(image: np.ndarray, values: np.ndarray, scored: Scored) -> dict[str, np.ndarray]:
    positive = np.maximum(values, 0)
    seen = image * (positive / positive.max() if positive.any() else positive)[..., None]
    whole, part = scored(np.stack([image, seen])).astype("float64")
    return {
        "average_drop": max(0, whole - part) / max(whole, 1e-12),
        "average_increase": np.float64(part > whole),
        "average_gain": max(0, part - whole) / max(1 - whole, 1e-12),
    }


def _in_batches(scored: Scored, variants: np.ndarray) -> np.ndarray:
    return np.concatenate([scored(some) for some in batched(variants, variants.shape[1:])])


def _as_large(maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(maps)
    numbers = np.issubdtype(array.dtype, np.number) or array.dtype == bool
    if array.ndim != 3 or len(array) != shape[0] or not array.size or not numbers:
        raise InvalidValueError(f"maps have shape {array.shape} and type {array.dtype}; numbers {shape} are needed")
    if not np.isfinite(array).all():
        raise InvalidValueError("maps hold NaN or infinity")
    return np.stack([enlarged(each, (shape[1], shape[2])) for each in array])


def _inside(where: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Masks (n, height, width) of masks, or of boxes (n, 4)."""
    array = np.asarray(where)
    if array.shape == (shape[0], 4):
        masks = np.zeros(shape, bool)
        for mask, (left, top, right, bottom) in zip(masks, np.maximum(array, 0).astype(int), strict=True):
            mask[top:bottom, left:right] = True
    elif array.shape == shape:
        masks = array.astype(bool)
    else:
        raise InvalidValueError(f"where has shape {array.shape}; masks {shape} or boxes ({shape[0]}, 4) are needed")
    if not masks.any(axis=(1, 2)).all():
        raise InvalidValueError("where holds no pixel of some image")
    return masks
