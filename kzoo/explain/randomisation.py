"""Whether a map depends on what a model has learned: maps of the model with its weights in disorder."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from scipy.stats import spearmanr

from kzoo.errors import InvalidValueError
from kzoo.explain.cams import as_tensor, logits_of
from kzoo.explain.replay import Replay
from kzoo.explain.targets import Target, probable_classes
from kzoo.layers.checks import check_seed, is_integer
from kzoo.surgery.level import Level
from kzoo.surgery.rewrite import rewrite

ALIKE = 0.5  # mean rank correlation from which a map is flagged

Method = Callable[[keras.Model, np.ndarray, Target], np.ndarray]


class Randomisation(NamedTuple):
    """What `randomisation_check` found.

    Attributes:
        layers: path of the last layer that is in disorder at each step, from the top.
        correlations: rank correlation (steps, n) of each map with that of the trained model.
        alike: whether their mean is above 0.5: the map shows the picture more than the model.
    """

    layers: list[str]
    correlations: np.ndarray
    alike: bool


def randomisation_check(
    model: keras.Model,
    images: np.ndarray,
    method: Method,
    target: Target = None,
    steps: int = 10,
    seed: int = 0,
) -> Randomisation:
    """Compares maps before and after the weights are randomised, from the top of a model layer by layer.

    The cascading randomisation of Adebayo et al. 2018 (arXiv:1810.03292, section 3.1), with Spearman's rank
    correlation of the signed maps. The values of each weight are put in random order, instead of being drawn anew, so
    that activations keep their size. The model itself is left as it is.

    Args:
        model: functional or Sequential model of one image.
        images: (n, height, width, channels).
        method: function of model, images and target that gives maps (n, height, width): `kzoo.grad_cam`, say.
        target: as in `kzoo.grad_cam`; the default, the most probable class, stays that of the trained model.
        steps: number of comparisons, spread evenly over the layers with weights; the last is of all of them.
        seed: of the disorder.

    Raises:
        InvalidValueError: a number of steps below 1, a model without weights, or what the method raises.

    Example:
        >>> found = randomisation_check(model, images, kzoo.grad_cam)
        >>> found.correlations.mean(axis=1), found.alike
        (array([0.31, 0.12, ...]), False)
    """
    if not is_integer(steps, 1):
        raise InvalidValueError(f"steps={steps!r} must be a positive integer")
    check_seed(seed)
    if not callable(method):
        raise InvalidValueError(
            f"method={method!r} must be a function of model, images and target, such as kzoo.grad_cam"
        )
    replay, tensor = Replay(model), as_tensor(model, images)
    changed = rewrite(Level(model), lambda level: {})
    layers = _from_the_top(changed)
    if not layers:
        raise InvalidValueError(f"{model.name} has no weights; nothing can be randomised")
    fixed = probable_classes(logits_of(replay, tensor)).tolist() if target is None else target
    before = method(model, images, fixed)
    rng = np.random.default_rng(seed)
    names, correlations = [], []
    for some in np.array_split(np.arange(len(layers)), min(steps, len(layers))):
        for index in some:
            layer = layers[index][1]
            layer.set_weights([rng.permuted(weight.ravel()).reshape(weight.shape) for weight in layer.get_weights()])
        names.append(layers[some[-1]][0])
        after = method(changed, images, fixed)
        correlations.append([rank_correlation(*pair) for pair in zip(before, after, strict=True)])
    found = np.array(correlations)
    return Randomisation(names, found, bool(found.mean() > ALIKE))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of two maps; a map that is the same everywhere is like another such alone."""
    flat = [np.ptp(each) == 0 for each in (first, second)]
    if any(flat):
        return float(all(flat))
    return float(spearmanr(first.ravel(), second.ravel()).statistic)


def _from_the_top(model: keras.Model) -> list[tuple[str, keras.layers.Layer]]:
    """Paths and layers with weights, each once, the last one first."""
    found: dict[int, tuple[str, keras.layers.Layer]] = {}
    for node in reversed(Replay(model).nodes):
        if isinstance(node.operation, keras.layers.Layer) and node.operation.weights:
            found.setdefault(id(node.operation), (node.path, node.operation))
    return list(found.values())
