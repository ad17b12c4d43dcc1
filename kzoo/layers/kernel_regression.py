"""Kernel regression as attention: the estimator of Nadaraya and Watson."""

import math
from numbers import Real

import keras
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import check_flag
from kzoo.layers.dot_product import tokens

DIRECT_FEATURES = 8  # up to here distances come from differences, beyond from matrix products


@keras.saving.register_keras_serializable(package="kzoo")
class KernelRegressionAttention(keras.layers.Layer):
    """Averages values, each weighted by how near its key is to the query (Nadaraya 1964; Watson 1964).

    `f(x) = sum_i K(x - x_i) y_i / sum_j K(x - x_j)` with queries x, keys x_i, values y_i and the Gaussian kernel
    `K(u) = exp(-||u||² / (2 width²))`. That is attention whose logits are `-||x - x_i||² / (2 width²)`:
    attention pooling. The logits and their softmax are computed in float32 or better, so queries far from all
    keys, where every kernel underflows, take the value of the nearest key.

    Up to 8 features the distances are computed from differences, which needs queries · keys · features numbers
    but stays exact for tiny widths. For more features they come from matrix products of centred queries and
    keys, whose rounding errors matter once the width is below about 1e-3 of the keys' spread.

    Args:
        width: of the kernel, in the unit of the queries. `None`: sqrt(features), which makes the logits half
            the mean squared difference per feature.
        learn_width: whether the width is learned. It then starts at `width`, and the scalar weight `log_width`
            holds its logarithm, so that it stays positive.

    Call arguments:
        queries: tokens (batch, N, features) or a map (batch, height, width, features).
        keys: tokens (batch, M, features) or a map; by default the queries.
        values: tokens (batch, M, size) or a map, as many as keys; by default the keys.

    Output shape: that of the queries with the values' size in place of the features.

    Raises:
        InvalidValueError: a width that is not positive, inputs that are neither tokens nor maps, queries and
            keys of different features, different numbers of keys and values.

    Example:
        >>> x, y = keras.ops.ones((2, 50, 1)), keras.ops.ones((2, 50, 3))
        >>> KernelRegressionAttention(width=0.5)(keras.ops.ones((2, 9, 1)), x, y).shape
        TensorShape([2, 9, 3])
    """

    def __init__(self, width: float | None = 1.0, learn_width: bool = False, **kwargs):
        super().__init__(**kwargs)
        if width is not None and not (isinstance(width, Real) and width is not True and 1e-15 <= width <= 1e15):
            raise InvalidValueError(
                f"width={width!r} must be a positive number, between 1e-15 and 1e15, or None for sqrt(features)"
            )
        self.width = width if width is None else float(width)
        self.learn_width = check_flag("learn_width", learn_width)

    def build(self, queries_shape, keys_shape=None, values_shape=None):
        shapes = {"queries": queries_shape, "keys": keys_shape, "values": values_shape}
        for name, shape in shapes.items():
            if shape is not None and (len(shape) not in (3, 4) or not shape[-1]):
                raise InvalidValueError(
                    f"{type(self).__name__} {self.name!r} takes tokens (batch, N, features) or maps (batch, height, "
                    f"width, features) with known features, got {name} of shape {tuple(shape)}"
                    + ("; add an axis to numbers without features: x[..., None]" if len(shape) == 2 else "")
                )
        keys_shape = keys_shape or queries_shape
        values_shape = values_shape or keys_shape
        if keys_shape[-1] != queries_shape[-1]:
            raise InvalidValueError(
                f"{type(self).__name__} {self.name!r}: queries have {queries_shape[-1]} features and keys "
                f"{keys_shape[-1]}; they must have as many, for distances between them"
            )
        keys, values = _count(keys_shape), _count(values_shape)
        if keys and values and keys != values:
            raise InvalidValueError(
                f"{type(self).__name__} {self.name!r}: {keys} keys and {values} values; give each key one value"
            )
        if self.learn_width:
            self.log_width = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(math.log(self._start(queries_shape[-1]))),
                name="log_width",
                autocast=False,
            )

    def _start(self, features: int) -> float:
        return math.sqrt(features) if self.width is None else self.width

    def attention_weights(self, queries, keys=None):
        """The weights K(x - x_i) / sum_j K(x - x_j), (batch, queries, keys); `keys` are by default the queries."""
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        queries = ops.cast(_tokens(queries), dtype)  # (B, N, D)
        keys = queries if keys is None else ops.cast(_tokens(keys), dtype)  # (B, M, D)
        if queries.shape[-1] <= DIRECT_FEATURES:
            differences = ops.expand_dims(queries, 2) - ops.expand_dims(keys, 1)  # (B, N, M, D)
            logits = -ops.sum(ops.square(differences), axis=-1) / 2
        else:  # -||q - k||² / 2 = q · k - ||k||² / 2 - ||q||² / 2, whose last term is equal for all keys and cancels
            centre = ops.mean(keys, axis=1, keepdims=True)
            queries, keys = queries - centre, keys - centre
            norms = ops.sum(ops.square(keys), axis=-1)  # (B, M)
            logits = ops.matmul(queries, ops.transpose(keys, (0, 2, 1))) - ops.expand_dims(norms, 1) / 2
        if self.learn_width:
            precision = ops.exp(-2 * ops.cast(self.log_width, dtype))
        else:
            precision = 1 / self._start(queries.shape[-1]) ** 2
        return ops.cast(ops.softmax(logits * precision, axis=-1), self.compute_dtype)

    def call(self, queries, keys=None, values=None):
        keys = queries if keys is None else keys
        values = keys if values is None else values
        return self.mix(self.attention_weights(queries, keys), queries, values)

    def mix(self, weights, queries, values):
        """What the layer makes of values with these weights, (batch, queries, keys)."""
        y = ops.matmul(weights, _tokens(values))  # (B, N, size)
        if len(queries.shape) == 4:
            _, rows, columns, _ = ops.shape(queries)
            y = ops.reshape(y, (-1, rows, columns, values.shape[-1]))
        return y

    def compute_output_shape(self, queries_shape, keys_shape=None, values_shape=None):
        return (*queries_shape[:-1], (values_shape or keys_shape or queries_shape)[-1])

    def macs(self, input_shape: tuple) -> int:
        """Multiply-adds for one map, or one row of tokens, whose own positions are keys and values."""
        positions = _count(input_shape)
        if not positions:
            raise InvalidValueError(
                f"{type(self).__name__} {self.name!r} needs a known number of positions to count multiply-adds, "
                f"got shape {tuple(input_shape)}"
            )
        return 2 * positions**2 * input_shape[-1]

    def get_config(self):
        return super().get_config() | {"width": self.width, "learn_width": self.learn_width}


def _tokens(x):
    return tokens(x) if len(x.shape) == 4 else x


def _count(shape: tuple) -> int | None:
    """How many positions a shape has, `None` if it is unknown."""
    return None if None in shape[1:-1] else math.prod(shape[1:-1])
