"""Maps of every method, maps that know nothing, and tables of which are better, for the studies that judge maps."""

from collections.abc import Callable, Iterator

import keras
import numpy as np

from kzoo.edge import LiteRTModel
from kzoo.explain import (
    Estimate,
    eigen_cam,
    gaussian_maps,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    integrated_gradients,
    layer_cam,
    mean_with_interval,
    occlusion,
    random_maps,
    rise,
    smooth_grad,
)
from kzoo.explain.targets import Target

CAMS: dict[str, Callable] = {
    "Grad-CAM": grad_cam,
    "HiResCAM": hires_cam,
    "LayerCAM": layer_cam,
    "Grad-CAM++": grad_cam_plus_plus,
}
RANDOM, PIXELS, GAUSSIAN = KNOW_NOTHING = ("random, coarse", "random, pixels", "Gaussian")


def maps_of(
    model: keras.Model,
    file: LiteRTModel,
    images: np.ndarray,
    target: Target = None,
    masks: int = 200,
    steps: int = 25,
    stride: int | None = None,
    seed: int = 0,
) -> Iterator[tuple[str, np.ndarray]]:
    """Each method and its maps, then those that know nothing.

    Args:
        model: what maps with gradients are of.
        file: its file, which occlusion and RISE explain.
        images: (n, height, width, channels).
        target: what is explained.
        masks: number of RISE's masks.
        steps: gradients of integrated gradients and SmoothGrad for each image; with 0 both are left out.
        stride: of occlusion.
        seed: of the random maps.
    """
    for name, method in CAMS.items():
        maps = method(model, images, target)
        yield name, maps
    yield "Eigen-CAM", eigen_cam(model, images)
    if steps:
        yield "integrated gradients", integrated_gradients(model, images, target, steps=steps)
        yield "SmoothGrad", smooth_grad(model, images, target, samples=steps)
    yield "occlusion", occlusion(file, images, target, stride=stride)
    yield "RISE", rise(file, images, target, masks=masks)
    yield "RISE, grey", rise(file, images, target, masks=masks, value=None)
    yield RANDOM, random_maps(maps.shape, seed)
    yield PIXELS, random_maps(images.shape[:3], seed)
    yield GAUSSIAN, gaussian_maps(images.shape[:3])


def methods_of(judged: dict) -> list[str]:
    """The methods among what was judged."""
    return [name for name in judged if name not in KNOW_NOTHING]


def in_words(found: Estimate) -> str:
    """The mean and its interval."""
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)) + "\n"


def gain(judged: dict, method: str, other: str, measure: str, sign: int = 1) -> Estimate:
    """How much better a method is than another, image by image; `sign` is -1 where less is better."""
    return mean_with_interval(sign * (judged[method][measure].each - judged[other][measure].each))


def verdict(found: Estimate) -> str:
    """A gain with its interval, and what it says."""
    sure = "**better**" if found.low > 0 else "**worse**" if found.high < 0 else "open"
    return f"{sure} {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def tables(judged: dict, measures: dict[str, int]) -> list[str]:
    """What each method reaches, and what it gains over each map that knows nothing.

    Args:
        judged: method -> measure -> `Estimate`.
        measures: name -> 1 where more is better, -1 where less is.
    """
    rows = [[method, *(in_words(found[key]) for key in measures)] for method, found in judged.items()]
    parts = [table(["map", *measures], rows)]
    parts.append(
        "Better than maps that know nothing, image by image (positive is better; open: the interval holds 0):\n"
    )
    for other in (RANDOM, GAUSSIAN):
        rows = [
            [method, *(verdict(gain(judged, method, other, key, sign)) for key, sign in measures.items())]
            for method in methods_of(judged)
        ]
        parts.append(table([f"against {other}", *measures], rows))
    return parts


def as_numbers(judged: dict) -> dict:
    """Mean and interval of each measure, for a JSON file."""
    return {method: {key: [*each[1:]] for key, each in found.items()} for method, found in judged.items()}
