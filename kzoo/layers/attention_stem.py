"""The stem of a network that is made of stand-alone self-attention alone."""

import keras
import numpy as np
from keras import ops

from kzoo.layers.checks import check_feature_map, check_positive
from kzoo.layers.dot_product import merge_heads, number_places, split_heads, weigh
from kzoo.layers.local_attention import Axis, mask
from kzoo.layers.maximum import maximum
from kzoo.layers.stand_alone_attention import add_embeddings, check_even_heads, query_key_initializer, relative_logits
from kzoo.layers.windows import partition


@keras.saving.register_keras_serializable(package="kzoo")
class AttentionStem(keras.layers.Layer):
    """Attention with position-dependent values, then max-pooling (arXiv:1906.05909, section 3.3).

    Every pixel attends to the pixels of its pooling window, as `StandAloneSelfAttention` does, but with values
    that depend on where in the window they stand: `v_ab = (Σ_m p(a, b, m) W_m) x_ab`, a mixture of several
    value matrices with the factors `p(a, b, m) = softmax_m((row_a + column_b)ᵀ ν_m)`, which all heads share.
    Row, column and mixture embeddings have as many entries as there are filters; the paper does not say how
    many. The largest value of each window goes on.

    Args:
        filters: output channels.
        window_size: of attention and pooling, which is the stride too; 4 in the paper.
        num_heads: divides the filters into even parts.
        num_mixtures: value matrices; 4 in the paper.

    Input shape: (batch, height, width, C), height and width known.
    Output shape: (batch, ceil(height / window_size), ceil(width / window_size), filters). Pixels beyond the
    border do not exist: they get no weight and are not pooled.

    Raises:
        InvalidValueError: numbers that are not positive, heads that do not divide the filters into even parts,
            an input that is no map of known size.

    Example:
        >>> AttentionStem(filters=64)(keras.ops.ones((2, 33, 30, 3))).shape
        TensorShape([2, 9, 8, 64])
    """

    def __init__(self, filters: int, window_size: int = 4, num_heads: int = 4, num_mixtures: int = 4, **kwargs):
        super().__init__(**kwargs)
        self.filters = check_positive("filters", filters)
        self.window_size = check_positive("window_size", window_size)
        self.num_heads = check_positive("num_heads", num_heads)
        self.num_mixtures = check_positive("num_mixtures", num_mixtures)
        check_even_heads(self, self.filters, self.num_heads)
        options = dict(use_bias=False, dtype=self.dtype_policy)
        initializer = query_key_initializer(2 * filters, filters // num_heads)
        self.query_key = keras.layers.Dense(2 * filters, name="query_key", kernel_initializer=initializer, **options)
        self.values = keras.layers.Dense(num_mixtures * filters, name="values", **options)

    def build(self, input_shape):
        channels = check_feature_map(self, input_shape, static=True)
        size = self.window_size
        self.query_key.build((None, None, channels))
        self.values.build((None, None, channels))
        self.row_embedding, self.column_embedding = add_embeddings(
            self, 2 * size - 1, self.num_heads, self.filters // self.num_heads // 2
        )
        initializer = keras.initializers.RandomNormal(stddev=self.filters**-0.25)  # products of variance 1
        self.mixture_rows = self.add_weight(name="mixture_rows", shape=(size, self.filters), initializer=initializer)
        self.mixture_columns = self.add_weight(
            name="mixture_columns", shape=(size, self.filters), initializer=initializer
        )
        self.mixtures = self.add_weight(
            name="mixtures", shape=(self.filters, self.num_mixtures), initializer=initializer
        )

    def factors(self):
        """p(a, b, m) in float32: (window_size, window_size, num_mixtures)."""
        positions = self.mixture_rows[:, None] + self.mixture_columns[None]  # (size, size, filters)
        positions = ops.reshape(positions, (self.window_size**2, self.filters))
        logits = ops.matmul(positions, ops.convert_to_tensor(self.mixtures))
        factors = ops.softmax(ops.cast(logits, keras.backend.result_type(logits.dtype, "float32")), axis=-1)
        return ops.reshape(factors, (self.window_size, self.window_size, self.num_mixtures))

    def call(self, x, training=None):
        weights, values = self.weights_and_values(x)
        return self.mix(weights, values, x.shape, training)

    def weights_and_values(self, x):
        """The weights (batch · windows, num_heads, N, N) and values (batch · windows, num_heads, N, d) of a map.

        The N pixels of a window lie where `places` says. A pixel beyond the border has weight zero.
        """
        check_feature_map(self, x.shape, static=True)
        size = self.window_size
        rows, columns, mask = _plan(x.shape[1], x.shape[2], size)
        x = self._cut(x)  # (B · windows, N, C)
        query_key = self.query_key(x)
        query, key = (split_heads(query_key[..., part], self.num_heads) for part in self._halves())
        values = ops.reshape(self.values(x), (-1, size**2, self.num_mixtures, self.filters))
        factors = ops.cast(ops.reshape(self.factors(), (size**2, self.num_mixtures, 1)), values.dtype)
        value = split_heads(ops.sum(values * factors, axis=2), self.num_heads)
        bias = relative_logits(query, self.row_embedding, self.column_embedding, rows, columns)
        return weigh(query, key, bias, mask if (mask < 0).any() else None), value

    def mix(self, weights, values, shape: tuple, training=None):
        """What the layer makes of a map of this shape with these weights and values."""
        _, height, width, _ = shape
        size = self.window_size
        rows, columns, mask = _plan(height, width, size)
        y = merge_heads(ops.matmul(weights, values))
        y = ops.reshape(y, (-1, rows.padded // size * (columns.padded // size), size**2, self.filters))
        if rows.padded > height or columns.padded > width:
            y = y + ops.cast(_beyond_border(mask), y.dtype)
        y = maximum(y, axis=2, training=training)
        return ops.reshape(y, (-1, rows.padded // size, columns.padded // size, self.filters))

    def places(self, shape: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Where the queries and the keys lie in a map of this shape, (windows, N) each: y · width + x, or -1."""
        found = number_places(shape[1], shape[2], self._cut)
        return found, found

    def _cut(self, x):
        """Pads a map and cuts it into its pooling windows: (B · windows, N, channels)."""
        _, height, width, _ = x.shape
        size = self.window_size
        rows, columns, _ = _plan(height, width, size)
        if rows.padded > height or columns.padded > width:
            x = ops.pad(x, ((0, 0), (0, rows.padded - height), (0, columns.padded - width), (0, 0)))
        return partition(x, (size, size))

    def _halves(self) -> tuple[slice, slice]:
        return slice(0, self.filters), slice(self.filters, 2 * self.filters)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return batch, -(-height // self.window_size), -(-width // self.window_size), self.filters

    def macs(self, input_shape: tuple) -> int:
        """Multiply-adds for one map, its border padded to whole windows."""
        channels = check_feature_map(self, input_shape, static=True)
        size = self.window_size
        _, rows, columns, _ = self.compute_output_shape(input_shape)
        linear = (2 + self.num_mixtures) * channels + self.num_mixtures
        return rows * columns * size**2 * self.filters * (linear + 2 * size**2 + 2 * size - 1)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "window_size": self.window_size,
            "num_heads": self.num_heads,
            "num_mixtures": self.num_mixtures,
        }


def _plan(height: int, width: int, size: int) -> tuple[Axis, Axis, np.ndarray]:
    """How a map is cut into its pooling windows, and which pixels of each exist, (windows, N, N)."""
    rows, columns = (Axis(length, 2 * size - 1, size, halo=0) for length in (height, width))
    return rows, columns, mask(rows, columns, inward=False)


def _beyond_border(mask: np.ndarray) -> np.ndarray:
    """(windows, N, 1): very negative for pixels that are padding, so that pooling never picks them."""
    outside = mask.max(axis=1)[..., None] < 0  # keys that no query sees
    return np.where(outside, -6e4, 0).astype("float32")  # half precision ends at 65,504
