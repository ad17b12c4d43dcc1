"""Pictures of which a map takes pixels away: the most telling ones first, or last.

Each function takes an image (height, width, channels), the order (pixels,) in which its pixels go, as indices into the
flattened picture, and how many of them are gone in each variant; it gives (variants, height, width, channels).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import spsolve

BLUR = 5.0  # standard deviation in pixels, in a window of 11, as in the code of RISE
NOISE = 0.01  # of what ROAD fills in, as a share of the standard deviation of the picture
# The weights of the four neighbours beside a pixel, and of the four at its corners (Rong et al. 2022, section 4.2).
NEIGHBOURS = {(y, x): 1 / 6 if 0 in (y, x) else 1 / 12 for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)}


def falling(values: np.ndarray) -> np.ndarray:
    """Pixels from the largest value of a map (height, width) to the smallest; of equal ones the first comes first."""
    return np.argsort(-values.ravel(), kind="stable")


def deleted(image: np.ndarray, order: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """The picture with the mean of each of its channels where pixels are gone."""
    empty = np.broadcast_to(image.mean(axis=(0, 1)), image.shape)
    return _replaced(image, empty, order, counts)


def inserted(image: np.ndarray, order: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """The blurred picture, in which pixels come back."""
    return _replaced(gaussian_filter(image, (BLUR, BLUR, 0), truncate=1.0), image, order, counts)


def imputed(image: np.ndarray, order: np.ndarray, counts: Sequence[int], seed: int) -> np.ndarray:
    """The picture with each pixel that is gone the weighted mean of its neighbours, and a little noise.

    Noisy linear imputation (Rong et al. 2022, ROAD, arXiv:2202.00449, section 4.2): the means, of which some are of
    pixels that are gone themselves, are one sparse system of equations. Unlike a hole, what is filled in does not tell
    its shape. At the border the weights of the neighbours that there are count.
    """
    weights = _neighbours(image.shape[:2])
    rng, deviation = np.random.default_rng(seed), NOISE * image.std()
    pixels = image.reshape(-1, image.shape[2])
    filled = np.repeat(pixels[None], len(counts), axis=0)
    for variant, count in zip(filled, counts, strict=True):
        gone, kept = order[:count], order[count:]
        rows = weights[gone]
        system = (diags_array(rows.sum(axis=1)) - rows[:, gone]).tocsc()
        found = spsolve(system, rows[:, kept] @ pixels[kept]).reshape(count, -1)
        variant[gone] = found + deviation * rng.standard_normal(found.shape)
    return filled.reshape(len(counts), *image.shape)


def _replaced(before: np.ndarray, after: np.ndarray, order: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    channels = before.shape[-1]
    variants = np.repeat(before.reshape(1, -1, channels), len(counts), axis=0)
    for variant, count in zip(variants, counts, strict=True):
        variant[order[:count]] = after.reshape(-1, channels)[order[:count]]
    return variants.reshape(len(counts), *before.shape)


@lru_cache(maxsize=4)
def _neighbours(shape: tuple[int, int]) -> csr_array:
    """Weights (pixels, pixels) of each pixel's neighbours."""
    height, width = shape
    pixels = np.arange(height * width).reshape(shape)
    rows, columns, weights = [], [], []
    for (down, right), weight in NEIGHBOURS.items():
        own = pixels[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)].ravel()
        rows.append(own)
        columns.append(own + down * width + right)
        weights.append(np.full(len(own), weight))
    places = (np.concatenate(rows), np.concatenate(columns))
    return csr_array((np.concatenate(weights), places), shape=(pixels.size, pixels.size))
