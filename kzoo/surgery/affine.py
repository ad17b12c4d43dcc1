"""Layers that multiply each channel by a number and add another: what they compute, read as numbers."""

from dataclasses import dataclass

import keras
import numpy as np


@dataclass(frozen=True)
class Affine:
    """`y[..., c] = scale[c] * x[..., order[c]] + offset[c]`, all (channels,) in float64."""

    scale: np.ndarray
    offset: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, scale, offset, channels: int) -> "Affine":
        """Numbers or one number for all channels, which stay in their order."""
        scale, offset = (np.broadcast_to(np.asarray(v, "float64").reshape(-1), channels) for v in (scale, offset))
        return cls(scale, offset, np.arange(channels))

    def then(self, after: "Affine") -> "Affine":
        """First this one, then `after`."""
        return Affine(
            after.scale * self.scale[after.order],
            after.scale * self.offset[after.order] + after.offset,
            self.order[after.order],
        )

    def tile(self, times: int) -> "Affine":
        """The same for maps whose pixels have been written behind each other, as Flatten does."""
        channels = len(self.scale)
        order = np.concatenate([self.order + i * channels for i in range(times)])
        return Affine(np.tile(self.scale, times), np.tile(self.offset, times), order)

    @property
    def reorders(self) -> bool:
        return not np.array_equal(self.order, np.arange(len(self.order)))

    @property
    def offsets(self) -> bool:
        return bool(np.any(self.offset))


def norm_scale_and_offset(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """At inference `norm(x)` is `scale * x + offset`: both (channels,), in float64 (arXiv:1502.03167, algorithm 2)."""
    values = {weight.name: to_numpy(weight) for weight in norm.weights}
    scale = values.get("gamma", 1.0) / np.sqrt(values["moving_variance"] + norm.epsilon)
    return scale, values.get("beta", 0.0) - values["moving_mean"] * scale


def to_numpy(weight) -> np.ndarray:
    """A weight in float64."""
    return np.asarray(keras.ops.convert_to_numpy(weight), "float64")
