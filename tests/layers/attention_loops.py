"""Self-attention as its papers write it, one query at a time."""

import itertools

import numpy as np


def softmax(logits):
    weights = np.exp(logits - np.max(logits))
    return weights / weights.sum()


def dense(x, layer):
    """A dense layer on NumPy arrays, in float64."""
    y = np.asarray(x, "float64") @ np.array(layer.kernel, "float64")
    return y + np.array(layer.bias, "float64") if layer.use_bias else y


def pixels_of(x):
    """Every (row, column) of a map (batch, height, width, channels)."""
    return list(itertools.product(range(x.shape[1]), range(x.shape[2])))


def heads_of(channels: int, num_heads: int):
    """The channels of each head, as slices."""
    size = channels // num_heads
    return [slice(head * size, (head + 1) * size) for head in range(num_heads)]


def attend_to(query, keys, values, num_heads: int, bias, scale: bool = True):
    """One query (C,) to its keys and values (n, C), head by head; `bias(head, index of the key)` is added."""
    y = np.zeros(values.shape[-1])
    for head, part in enumerate(heads_of(len(query), num_heads)):
        size = part.stop - part.start if scale else 1
        logits = [query[part] @ key[part] / np.sqrt(size) + bias(head, index) for index, key in enumerate(keys)]
        for weight, value in zip(softmax(np.array(logits)), values, strict=True):
            y[part] += weight * value[part]
    return y
