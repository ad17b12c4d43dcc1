"""Stand-alone self-attention, which takes the place of a convolution, and its stem."""

import keras
import numpy as np
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import check_feature_map, check_flag, check_heads, check_odd, check_positive
from kzoo.layers.local_attention import Axis, local_mix, local_places, local_weights, plan


@keras.saving.register_keras_serializable(package="kzoo")
class StandAloneSelfAttention(keras.layers.Layer):
    """Self-attention in the k × k neighbourhood of every pixel (arXiv:1906.05909, equation 3).

    `y_ij = Σ softmax(q_ijᵀ k_ab + q_ijᵀ r_(a-i, b-j)) v_ab` over the pixels (a, b) of the k × k neighbourhood
    of (i, j), with query, key and value linear in x. Half of r is an embedding of the row offset a - i, half
    one of the column offset b - j. Heads are groups of channels, each with embeddings of its own. The logits
    are not divided by √d, as in the equation. Pixels beyond the border do not exist: they get no weight.

    Nothing of the size (height · width)² is built, and no key is copied k² times (see `local_attention`).

    Args:
        filters: output channels; None for as many as the input has.
        kernel_size: k, an odd number.
        num_heads: N, divides the filters into even parts.
        strides: above 1, average pooling of this size follows, as in the paper (section 3.2); an incomplete
            pool at the border averages what is there (`padding="same"`).
        use_bias: whether query, key and value have biases.

    Input shape: (batch, height, width, C), height and width known.
    Output shape: (batch, ceil(height / strides), ceil(width / strides), filters).

    Raises:
        InvalidValueError: heads that do not divide the filters into even parts, an even kernel size, an input
            that is no map of known size.

    Example:
        >>> StandAloneSelfAttention(64, num_heads=8, strides=2)(keras.ops.ones((2, 9, 7, 32))).shape
        TensorShape([2, 5, 4, 64])
    """

    def __init__(
        self,
        filters: int | None = None,
        kernel_size: int = 7,
        num_heads: int = 8,
        strides: int = 1,
        use_bias: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = None if filters is None else check_positive("filters", filters)
        self.kernel_size = check_odd("kernel_size", kernel_size)
        self.num_heads = check_positive("num_heads", num_heads)
        self.strides = check_positive("strides", strides)
        self.use_bias = check_flag("use_bias", use_bias)
        self.pool = keras.layers.AveragePooling2D(strides, padding="same", name="pool", dtype=self.dtype_policy)

    def build(self, input_shape):
        channels = check_feature_map(self, input_shape, static=True)
        filters = self.filters or channels
        check_even_heads(self, filters, self.num_heads)
        initializer = query_key_initializer(2 * filters, filters // self.num_heads)
        options = dict(use_bias=self.use_bias, kernel_initializer=initializer, dtype=self.dtype_policy)
        self.qkv = keras.layers.Dense(3 * filters, name="qkv", **options)
        self.qkv.build((None, None, None, channels))
        size = filters // self.num_heads // 2
        self.row_embedding, self.column_embedding = add_embeddings(self, self.kernel_size, self.num_heads, size)

    def call(self, x):
        weights, values = self.weights_and_values(x)
        return self.mix(weights, values, x.shape)

    def weights_and_values(self, x):
        """The weights (batch · blocks, num_heads, N, M) and values (batch · blocks, num_heads, M, d) of a map.

        N queries of a block see M keys of its window, at what `places` says. A key outside the neighbourhood has
        weight zero.
        """
        check_feature_map(self, x.shape, static=True)
        rows, columns, mask = self._plan(x.shape)
        qkv = self.qkv(x)
        filters = qkv.shape[-1] // 3

        def bias(query):
            return relative_logits(query, self.row_embedding, self.column_embedding, rows, columns)

        return local_weights(qkv[..., :filters], qkv[..., filters:], self.num_heads, rows, columns, mask, bias)

    def mix(self, weights, values, shape: tuple):
        """What the layer makes of a map of this shape with these weights and values."""
        rows, columns, _ = self._plan(shape)
        y = local_mix(weights, values, rows, columns, shape[1], shape[2])
        return self.pool(y) if self.strides > 1 else y

    def places(self, shape: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Where the queries (blocks, N) and the keys (blocks, M) lie in a map of this shape: y · width + x, or -1."""
        rows, columns, _ = self._plan(shape)
        return local_places(shape[1], shape[2], rows, columns)

    def _plan(self, shape: tuple) -> tuple[Axis, Axis, np.ndarray]:
        return plan(*shape[1:3], self.kernel_size, inward=False)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return batch, -(-height // self.strides), -(-width // self.strides), self.filters or channels

    def macs(self, input_shape: tuple) -> int:
        """Multiply-adds of the equation for one map, `3 h w C F + 2 k² h w F`, and 2 k h w F / 2 for `qᵀ r`.

        Products that the mask hides are not counted.
        """
        channels = check_feature_map(self, input_shape, static=True)
        filters = self.filters or channels
        pixels = input_shape[1] * input_shape[2]
        return pixels * filters * (3 * channels + 2 * self.kernel_size**2 + self.kernel_size)

    def absorb(self, scale: np.ndarray, offset: np.ndarray) -> tuple[keras.layers.Layer, list[np.ndarray]]:
        """A layer that gives `scale * y + offset` for each channel, and the weights to set once it is built.

        The values take them in: the weights of the attention sum to 1.
        """
        layer = type(self).from_config(self.get_config() | {"use_bias": True})
        embeddings = [np.asarray(ops.convert_to_numpy(each)) for each in (self.row_embedding, self.column_embedding)]
        kernel = np.asarray(ops.convert_to_numpy(self.qkv.kernel), "float64")
        bias = (
            np.asarray(ops.convert_to_numpy(self.qkv.bias), "float64") if self.use_bias else np.zeros(kernel.shape[1])
        )
        untouched = np.zeros(2 * len(scale))  # queries and keys
        scale, offset = np.concatenate([untouched + 1, scale]), np.concatenate([untouched, offset])
        return layer, [*embeddings, kernel * scale, bias * scale + offset]

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "num_heads": self.num_heads,
            "strides": self.strides,
            "use_bias": self.use_bias,
        }


def check_even_heads(layer: keras.layers.Layer, filters: int, num_heads: int) -> None:
    """Raises `InvalidValueError` unless every head gets the same even number of channels."""
    check_heads(layer, filters, num_heads, "filters")
    if filters // num_heads % 2:
        raise InvalidValueError(
            f"{type(layer).__name__} {layer.name!r}: filters={filters} give each of num_heads={num_heads} heads "
            f"{filters // num_heads} channels; the position embeddings need an even number, half for rows and half "
            "for columns"
        )


def query_key_initializer(columns: int, size: int):
    """Glorot's initial kernel, with the first columns, those of queries and keys, smaller by √√size each.

    Their products then start as if they were divided by √size. Without that the softmax over large heads is close to
    a maximum from the start: a deep network amplifies rounding to errors of 1.
    """

    def draw(shape, dtype=None):
        factors = np.ones(shape[-1], "float32")
        factors[:columns] = size**-0.25
        return keras.initializers.GlorotUniform()(shape, dtype) * ops.cast(factors, dtype)

    return draw


def add_embeddings(layer: keras.layers.Layer, offsets: int, num_heads: int, size: int):
    """Adds the embeddings of the row and the column offsets, each (num_heads, size, offsets)."""
    initializer = keras.initializers.RandomNormal(stddev=(2 * size) ** -0.5)
    return tuple(
        layer.add_weight(name=name, shape=(num_heads, size, offsets), initializer=initializer)
        for name in ("row_embedding", "column_embedding")
    )


def relative_logits(query, row_embedding, column_embedding, rows: Axis, columns: Axis):
    """`qᵀ r_(a-i, b-j)` of every query to every key of its window.

    Args:
        query: (batch · blocks, heads, block rows · block columns, d).
        row_embedding: (heads, d / 2, k), for the offsets from -(k // 2) to k // 2.
        column_embedding: the same.
        rows: how the map is cut.
        columns: how the map is cut.

    Returns:
        (batch · blocks, heads, queries, keys); keys outside the k × k neighbourhood get zeros.
    """
    _, heads, length, size = query.shape
    # heads lead in both factors: TensorFlow's CPU kernel reads beyond the end of one that it has to broadcast
    query = ops.reshape(ops.transpose(query, (1, 0, 2, 3)), (heads, -1, size))  # (heads, B · N, d)

    def products(query, embedding):
        """(B · heads, rows, columns, k)."""
        logits = ops.reshape(ops.matmul(query, embedding), (heads, -1, length * embedding.shape[-1]))
        logits = ops.transpose(logits, (1, 0, 2))
        return ops.reshape(logits, (-1, rows.block, columns.block, embedding.shape[-1]))

    by_row = ops.transpose(products(query[..., : size // 2], row_embedding), (0, 2, 1, 3))
    by_row = ops.transpose(_spread(by_row, rows), (0, 2, 1, 3))  # (B · heads, rows, columns, row window)
    by_row = ops.reshape(by_row, (-1, length, rows.window, 1))
    by_column = _spread(products(query[..., size // 2 :], column_embedding), columns)
    by_column = ops.reshape(by_column, (-1, length, 1, columns.window))
    return ops.reshape(by_row + by_column, (-1, heads, length, rows.window * columns.window))


def _spread(logits, axis: Axis):
    """Products of queries with embeddings (B, other, block, k), at the keys of the window: (B, other, block, window).

    The key at position u of the window has the offset u - halo - i from the query at position i: each row of
    the products moves one to the right of the one before, which padding and reading on in rows that are one
    shorter does.
    """
    _, other, block, offsets = logits.shape
    window = block + offsets - 1
    logits = ops.pad(logits, ((0, 0), (0, 0), (0, 0), (0, block)))  # rows of window + 1
    logits = ops.reshape(logits, (-1, other, block * (window + 1)))[..., : block * window]
    logits = ops.reshape(logits, (-1, other, block, window))
    first = (window - axis.window) // 2  # without a halo the window is the map alone
    return logits[..., first : first + axis.window]
