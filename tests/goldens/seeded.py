"""Deterministic arrays for the weights of a torch model, by name: the same here and beside torch."""

import math
import zlib

import numpy as np


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 array for a torch weight; `name` decides its seed and its scale."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        # Kernels (out, in, ...) with variance 1 / fan-in. Twice that, He's initialisation, lets the residual sum
        # grow over 1000-fold where batch normalisation does not use the batch's own statistics; sigmoids then jump
        # between 0 and 1, and timm's float32 and float64 logits of seresnet50 differ by 5 %.
        array = rng.normal(0, math.sqrt(1 / math.prod(shape[1:])), shape)
    elif name.endswith("running_var") or _is_norm_weight(name):
        array = rng.uniform(0.5, 1.5, shape)
    else:  # biases and running means
        array = rng.normal(0, 0.1, shape)
    return array.astype("float32")


def _is_norm_weight(name: str) -> bool:
    """One-dimensional weights are batch normalisation's gammas: everything else has a kernel."""
    return name.endswith(".weight")


def seeded_images(*shape: int) -> np.ndarray:
    """Random uint8 images of the shape (n, height, width, channels)."""
    return np.random.default_rng(7).integers(0, 256, shape, dtype="uint8")


def seeded_map(*shape: int) -> np.ndarray:
    """A feature map of normal values, channels last."""
    return np.random.default_rng(8).normal(size=shape).astype("float32")


def seeded_pictures(height: int, width: int) -> np.ndarray:
    """Two uint8 images, noise and blocks of 16×16 pixels, which differ more in a network's eyes than two of noise."""
    noise = seeded_images(2, height, width, 3)
    rows, columns = np.arange(height) // 16 * 16, np.arange(width) // 16 * 16
    noise[1] = noise[1, rows][:, columns]
    return noise
