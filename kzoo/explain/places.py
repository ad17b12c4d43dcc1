"""Attention over places: the weights of a layer, where they lie on its map, and what it makes of other weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.explain.handing import Reads, Size
from kzoo.explain.replay import Replay, leading_to
from kzoo.flatten import Node
from kzoo.layers import (
    AttentionStem,
    KernelRegressionAttention,
    MultiHeadSelfAttention,
    NeighborhoodAttention,
    NonLocal,
    StandAloneSelfAttention,
    WindowAttention,
)


@dataclass(frozen=True, eq=False)
class PlaceWeights:
    """The weights of one call of an attention layer: how much each query takes from each key.

    Attributes:
        tensor: (n · windows, heads, N, M), the layer's own numbers.
        queries: (windows, N), the place of each query on the layer's map, y · width + x; -1: padding.
        keys: (windows, M), the same of the keys.
        shape: of the layer's map, or of its tokens.
        mix: what the layer makes of other weights.
        pooled: how the layer's output reads the map of queries, where it pools behind the attention, and its size.
        keys_read: how the map of keys reads the layer's, where it is pooled before, and its size.
        adds_input: whether the layer adds its input to what it attends to.
    """

    tensor: Any
    queries: np.ndarray
    keys: np.ndarray
    shape: tuple[int, ...]
    mix: Callable[[Any], Any]
    pooled: tuple[Reads, Size] | None = None
    keys_read: tuple[Reads, Size] | None = None
    adds_input: bool = False

    def of_query(self, share: tuple[float, float], name: str) -> np.ndarray:
        """The weights of one place, (n, heads, rows, columns) of the map of keys, zero where it does not look.

        Args:
            share: (y, x) of the place, each as a part of the map's side.
            name: what the layer is called, for errors.

        Raises:
            InvalidValueError: tokens that are no square.
        """
        height, width = sides(self.shape) or (0, 0)
        if not height:
            raise InvalidValueError(f"{name} attends to {self.shape[1]} tokens, which are no square of places")
        place = int(share[0] * height) * width + int(share[1] * width)
        ((window, query),) = np.argwhere(self.queries == place)
        heads = self.tensor.shape[1]
        found = ops.reshape(self.tensor, (-1, len(self.queries), *self.tensor.shape[1:]))[:, window, :, query]
        row, at = ops.convert_to_numpy(found).astype("float32"), self.keys[window]
        _, (rows, columns) = self.keys_read or (None, (height, width))
        laid = np.zeros((len(row), heads, rows * columns), "float32")
        laid[..., at[at >= 0]] = row[..., at >= 0]
        return laid.reshape(len(row), heads, rows, columns)

    def means(self, gradients: np.ndarray | None = None) -> np.ndarray:
        """Mean over the heads of the weights, or of the positive part of weights × gradients: (n, windows, N, M)."""
        weights = ops.convert_to_numpy(self.tensor).astype("float32")
        if gradients is not None:
            weights = np.maximum(weights * gradients.reshape(weights.shape), 0)
        return weights.mean(axis=1).reshape(-1, len(self.queries), *weights.shape[2:])

    def rolled(self, relevance: np.ndarray, means: np.ndarray) -> np.ndarray:
        """The relevance (n, places) of the layer's input, from that of its output: rᵀA.

        What goes to padding is lost.
        """
        size = self.shape[1:3] if len(self.shape) == 4 else (self.shape[1], 1)
        attended = relevance
        if self.pooled:
            reads, outputs = self.pooled
            attended = reads.hand_down(relevance, outputs, size)
        asking = np.where(self.queries >= 0, attended[:, self.queries], 0)
        given = np.einsum("bwq,bwqk->bwk", asking, means)
        keys = self.keys_read[1] if self.keys_read else size
        found, seen = np.zeros((len(relevance), keys[0] * keys[1])), self.keys >= 0
        np.add.at(found.T, self.keys[seen], given[:, seen].T)
        if self.keys_read:
            found = self.keys_read[0].hand_down(found, keys, size)
        return (relevance + found) / 2 if self.adds_input else found


def sides(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(height, width) of a map (n, height, width, channels), or of tokens (n, side², channels); None of others."""
    if len(shape) == 4:
        return shape[1], shape[2]
    side = int(shape[1] ** 0.5) if len(shape) == 3 else 0
    return (side, side) if side and side**2 == shape[1] else None


def read_weights(layer: Any, args: list, kwargs: dict[str, Any]) -> PlaceWeights:
    """The weights of a layer of one of the kinds `ATTENDING`, called with these arguments.

    Raises:
        InvalidValueError: kernel regression whose keys or values are another tensor.
    """
    return next(read for kind, read in ATTENDING.items() if isinstance(layer, kind))(layer, args, kwargs)


def attending(replay: Replay, ends: list[Node]) -> list[Node]:
    """The calls that attend over places, of those that lead to `ends`, in the order of the model.

    Raises:
        InvalidValueError: there is none.
    """
    before = set(leading_to(ends))
    found = [node for node in replay.nodes if node in before and isinstance(node.operation, tuple(ATTENDING))]
    if not found:
        known = ", ".join(kind.__name__ for kind in ATTENDING)
        raise InvalidValueError(f"{replay.name} has no attention over places, which rollout is made of: {known}")
    return found


def first(args: list, kwargs: dict[str, Any]) -> Any:
    """What a layer of one input is called on."""
    return args[0] if args else next(iter(kwargs.values()))


def _of_windows(layer, args: list, kwargs: dict[str, Any]) -> PlaceWeights:
    x = first(args, kwargs)
    weights, values = layer.weights_and_values(x)
    queries, keys = layer.places(x.shape)
    return PlaceWeights(weights, queries, keys, x.shape, lambda weights: layer.mix(weights, values, x.shape))


def _of_pooled_windows(layer: StandAloneSelfAttention, args: list, kwargs: dict[str, Any]) -> PlaceWeights:
    found = _of_windows(layer, args, kwargs)
    step = (layer.strides, layer.strides)
    return replace(found, pooled=(Reads(step, step), layer.compute_output_shape(found.shape)[1:3]))


def _of_stem(layer: AttentionStem, args: list, kwargs: dict[str, Any]) -> PlaceWeights:
    found = _of_windows(layer, args, kwargs)
    step = (layer.window_size, layer.window_size)
    return replace(found, pooled=(Reads(step, step, before=(0, 0)), layer.compute_output_shape(found.shape)[1:3]))


def _of_tokens(layer: MultiHeadSelfAttention, args: list, kwargs: dict[str, Any]) -> PlaceWeights:
    x = first(args, kwargs)
    mask = args[1] if len(args) > 1 else kwargs.get("attention_mask")
    weights, values = layer.weights_and_values(x, mask)
    every = np.arange(weights.shape[-1])[None]
    return PlaceWeights(weights, every, every, x.shape, lambda weights: layer.mix(weights, values, x.shape))


def _of_pairs(layer: NonLocal, args: list, kwargs: dict[str, Any]) -> PlaceWeights:
    x = first(args, kwargs)
    weights = layer.attention_weights(x)[:, None]
    queries, keys = (np.arange(count)[None] for count in weights.shape[2:])
    pooled = (Reads((2, 2), (2, 2), before=(0, 0)), (x.shape[1] // 2, x.shape[2] // 2))
    read = pooled if layer.subsample else None
    return PlaceWeights(
        weights, queries, keys, x.shape, lambda weights: layer.mix(weights[:, 0], x), keys_read=read, adds_input=True
    )


def _of_kernels(layer: KernelRegressionAttention, args: list, kwargs: dict[str, Any]) -> PlaceWeights:
    if len(args) + len(kwargs) > 1:
        raise InvalidValueError(f"{layer.name} looks at another tensor than its queries, which is not read")
    x = first(args, kwargs)
    weights = layer.attention_weights(x)[:, None]
    every = np.arange(weights.shape[-1])[None]
    return PlaceWeights(weights, every, every, x.shape, lambda weights: layer.mix(weights[:, 0], x, x))


ATTENDING: dict[type, Callable[[Any, list, dict[str, Any]], PlaceWeights]] = {
    MultiHeadSelfAttention: _of_tokens,
    NonLocal: _of_pairs,
    WindowAttention: _of_windows,
    NeighborhoodAttention: _of_windows,
    StandAloneSelfAttention: _of_pooled_windows,
    AttentionStem: _of_stem,
    KernelRegressionAttention: _of_kernels,
}
