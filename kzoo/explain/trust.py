"""How far the maps of a page can be trusted: scores beside maps that know nothing, and whether weights matter."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from scipy.integrate import trapezoid

from kzoo.edge import LiteRTModel
from kzoo.explain.baselines import gaussian_maps, random_maps
from kzoo.explain.hiding import deleted, falling, inserted
from kzoo.explain.judging import Estimate, mean_with_interval, probabilities_of
from kzoo.explain.methods import LAYER, METHODS, TARGET, Map
from kzoo.explain.perturbation import as_pixels, each_scored, enlarged
from kzoo.explain.randomisation import Randomisation, randomisation_check
from kzoo.output import Output

STEPS = 10  # of deletion and insertion
FEW, MOST = 1, 2  # comparisons of the randomisation check, of a method of many passes and of the others
BETTER = {"deletion": -1, "insertion": 1}  # measure -> sign of what is better


@dataclass(frozen=True, eq=False)
class Trust:
    """What is known of the maps of one method and layer, of the first class of each picture.

    Attributes:
        method: key of `kzoo.explain.methods.METHODS`.
        layer: path of the feature map, or None.
        pictures: number of pictures that the scores are means of.
        scores: measure -> {"map", "random", "gaussian"} -> `Estimate`.
        gains: measure -> {"random", "gaussian"} -> how much better the map is, as `Estimate`; positive is better.
        check: of the first picture; None for a LiteRT file, whose weights cannot be put in disorder.
    """

    method: str
    layer: str | None
    pictures: int
    scores: dict[str, dict[str, Estimate]]
    gains: dict[str, dict[str, Estimate]]
    check: Randomisation | None


def trust_of(
    model: keras.Model | LiteRTModel,
    output: Output,
    images: np.ndarray,
    maps: Sequence[Sequence[Map]],
    targets: Sequence[Any],
) -> Iterator[Trust]:
    """Judges the maps of several pictures, one method and layer after the other.

    Deletion and insertion are those of `kzoo.explain.judge_maps` in 10 steps, which tells more and takes longer.

    Args:
        model: what is explained.
        output: what its numbers mean.
        images: (n, height, width, channels).
        maps: of each picture, as `kzoo.explain.methods.maps_of` gives them.
        targets: of each picture, the class whose probability is asked for, or the detection of which is asked how much
            is still found.

    Example:
        >>> [trust] = trust_of(model, Output.of_model(model), images, maps, [3, 5])
        >>> trust.gains["deletion"]["random"].mean
        0.12
    """
    known: dict[tuple[tuple[int, ...], ...], dict[str, dict[str, np.ndarray]]] = {}  # the same for all maps of a size
    for method, layer in dict.fromkeys((each.method, each.layer) for each in maps[0]):
        chosen = [_one(own, method, layer, target) for own, target in zip(maps, targets, strict=True)]
        shapes = tuple(each.shape for each in chosen)  # of detections they may stand on several maps
        areas = partial(_areas, model, output, images, targets=targets)
        if shapes not in known:
            known[shapes] = {
                "random": areas(_random(shapes)),
                "gaussian": areas([gaussian_maps((1, *shape))[0] for shape in shapes]),
            }
        found = {"map": areas(chosen)} | known[shapes]
        scores = {key: {what: mean_with_interval(each[key]) for what, each in found.items()} for key in BETTER}
        gains = {
            key: {
                what: mean_with_interval(sign * (found["map"][key] - found[what][key]))
                for what in ("random", "gaussian")
            }
            for key, sign in BETTER.items()
        }
        check = None if isinstance(model, LiteRTModel) else _check(model, images[:1], method, layer, targets[0])
        yield Trust(method, layer, len(images), scores, gains, check)


def _random(shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Maps as `random_maps` draws them, each of its own shape."""
    flat = random_maps((1, 1, sum(map(math.prod, shapes))))[0, 0]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]


def _one(maps: Sequence[Map], method: str, layer: str | None, target: Any) -> np.ndarray:
    """The map of the target, or the only one of a method that asks for no class."""
    return next(
        each.values for each in maps if (each.method, each.layer) == (method, layer) and each.target in (target, None)
    )


def _areas(
    model: keras.Model | LiteRTModel,
    output: Output,
    images: np.ndarray,
    maps: Sequence[np.ndarray],
    targets: Sequence[Any],
) -> dict[str, np.ndarray]:
    """Areas under the probability of each picture's target: measure -> (n,)."""
    shares = np.linspace(0, 1, STEPS + 1)
    found: dict[str, list[float]] = {key: [] for key in BETTER}
    pixels = as_pixels(model, images)
    name = "the file" if isinstance(model, LiteRTModel) else model.name
    asked = each_scored(probabilities_of(model, output), pixels, list(targets), name)
    for (image, scored), values in zip(asked, maps, strict=True):
        order = falling(enlarged(values, image.shape[:2]))
        counts = [round(share * order.size) for share in shares]
        for key, hide in (("deletion", deleted), ("insertion", inserted)):
            found[key].append(float(trapezoid(scored(hide(image, order, counts)).astype("float64"), shares)))
    return {key: np.array(each) for key, each in found.items()}


def _check(model: keras.Model, images: np.ndarray, name: str, layer: str | None, target: Any) -> Randomisation:
    method = METHODS[name]

    def maps(changed: keras.Model, batch: np.ndarray, fixed) -> np.ndarray:
        given = {TARGET: fixed, LAYER: layer}
        return method.maps(changed, batch, **{key: given[key] for key in method.takes})

    return randomisation_check(model, images, maps, target, steps=FEW if method.many_passes else MOST)
