"""Steps of dense networks in NumPy, pixel by pixel and in float64; maps are (batch, height, width, channels)."""

import itertools
import math

import numpy as np


def convolve(x, kernel, bias, padding: int = 0) -> np.ndarray:
    """Convolution of stride 1 with a kernel (h, w, in, out) on a map with `padding` zeros at each side."""
    x = np.pad(np.asarray(x, "float64"), [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    height, width = kernel.shape[:2]
    y = np.zeros((len(x), x.shape[1] - height + 1, x.shape[2] - width + 1, kernel.shape[3]))
    for i, j in np.ndindex(y.shape[1:3]):
        patch = x[:, i : i + height, j : j + width]
        y[:, i, j] = np.tensordot(patch, kernel, 3) + bias
    return y


def transpose_convolve(x, kernel, bias) -> np.ndarray:
    """Transposed convolution of Keras' kernel (2, 2, out, in) and stride 2: every pixel becomes 2×2 of its own."""
    x = np.asarray(x, "float64")
    batch, height, width, _ = x.shape
    y = np.zeros((batch, 2 * height, 2 * width, kernel.shape[2]))
    for i, j, row, column in np.ndindex(height, width, 2, 2):
        y[:, 2 * i + row, 2 * j + column] = x[:, i, j] @ kernel[row, column].T + bias
    return y


def upsample_nearest(x, factor: int) -> np.ndarray:
    """Every pixel becomes `factor`×`factor` equal ones."""
    batch, height, width, channels = x.shape
    y = np.zeros((batch, factor * height, factor * width, channels))
    for i, j in np.ndindex(y.shape[1:3]):
        y[:, i, j] = x[:, i // factor, j // factor]
    return y


def upsample_bilinear(x, factor: int) -> np.ndarray:
    """Pixels are squares: the centre of new pixel i is at (i + 1/2) / factor - 1/2 of the old; the edge repeats."""
    batch, height, width, channels = x.shape
    y = np.zeros((batch, factor * height, factor * width, channels))
    for i, j in np.ndindex(y.shape[1:3]):
        row, column = (i + 0.5) / factor - 0.5, (j + 0.5) / factor - 0.5
        top, left = math.floor(row), math.floor(column)
        for old_row, old_column in itertools.product((top, top + 1), (left, left + 1)):
            share = (1 - abs(row - old_row)) * (1 - abs(column - old_column))
            y[:, i, j] += share * x[:, min(max(old_row, 0), height - 1), min(max(old_column, 0), width - 1)]
    return y


def fit(x, height: int, width: int, rounding: int = 1) -> np.ndarray:
    """Crops a map or repeats its border: at the end for a difference of up to `rounding`, else around the centre."""
    rows, columns = (_places(old, new, rounding) for old, new in zip(x.shape[1:3], (height, width), strict=True))
    y = np.zeros((len(x), height, width, x.shape[3]))
    for i, j in np.ndindex(height, width):
        y[:, i, j] = x[:, rows[i], columns[j]]
    return y


def _places(old: int, new: int, rounding: int) -> list[int]:
    """Which pixel stands at each new place of one axis."""
    before = 0 if abs(new - old) <= rounding else abs(new - old) // 2
    first = before if new < old else -before
    return [min(max(first + i, 0), old - 1) for i in range(new)]


def normalise(x, layer) -> np.ndarray:
    """Batch normalisation by its moving statistics."""
    gamma, beta, mean, variance = (np.array(weight, "float64") for weight in layer.get_weights())
    return (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta
