"""Channel attention as its papers write it, with loops."""

import itertools

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def squeeze_excite(x, w1, b1, w2, b2):
    """arXiv:1709.01507: z_c is the mean of u_c (equation 2), s = sigmoid(W2 relu(W1 z)) (3), s_c u_c (4)."""
    batch, height, width, channels = x.shape
    y = np.zeros_like(x, "float64")
    for n in range(batch):
        z = np.zeros(channels)
        for i, j in itertools.product(range(height), range(width)):
            z += x[n, i, j] / (height * width)
        s = sigmoid(np.maximum(z @ w1 + b1, 0) @ w2 + b2)
        for c in range(channels):
            y[n, :, :, c] = s[c] * x[n, :, :, c]
    return y


def channel_gates(x, w0, b0, w1, b1, descriptor):
    """arXiv:1807.06521, equation 2: sigmoid of the sum of MLP(AvgPool(F)) and MLP(MaxPool(F))."""
    gates = np.zeros((len(x), 1, 1, x.shape[-1]))
    for n in range(len(x)):
        positions = [x[n, i, j] for i, j in itertools.product(range(x.shape[1]), range(x.shape[2]))]
        avg, top = np.zeros(x.shape[-1]), np.full(x.shape[-1], -np.inf)
        for position in positions:
            avg += position / len(positions)
            top = np.maximum(top, position)
        used = {"avg": [avg], "max": [top], "both": [avg, top]}[descriptor]
        gates[n, 0, 0] = sigmoid(sum(np.maximum(f @ w0 + b0, 0) @ w1 + b1 for f in used))
    return gates


def mlp(layer):
    """The weights of a channel attention, with zeros for biases that it does not have."""
    denses = (layer.reduce, layer.expand)
    pairs = ((dense.kernel, dense.bias if dense.use_bias else np.zeros(dense.units)) for dense in denses)
    return [np.array(array, "float64") for pair in pairs for array in pair]
