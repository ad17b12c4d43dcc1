"""Multi-head self-attention over a whole map or a sequence of tokens."""

import keras
import numpy as np
from keras import ops

from kzoo.errors import InvalidValueError, check_choice
from kzoo.layers.checks import check_flag, check_heads, check_positive
from kzoo.layers.dot_product import MASKED, absorb_into, merge_heads, split_heads, weigh
from kzoo.layers.position import LearnedPositionEncoding, RelativePositionBias, SinusoidalPositionEncoding

POSITIONS = ("sinusoidal", "learned", "relative_bias", None)


@keras.saving.register_keras_serializable(package="kzoo")
class MultiHeadSelfAttention(keras.layers.Layer):
    """Scaled dot-product attention of every token to every token (arXiv:1706.03762, section 3.2).

    `softmax(Q Kᵀ / √d) V` for each head, the heads concatenated and projected. On the JAX and torch backends
    it is computed by their own fused attention, unless the weights are asked for.

    Args:
        num_heads: divides the channels.
        position: `None`, an encoding that is added to the input, `"sinusoidal"` or `"learned"`, or
            `"relative_bias"`, which is added to the logits and needs a map.
        use_bias: whether query, key and value have biases.

    Call arguments:
        x: a map (batch, height, width, channels), whose pixels are the tokens, or tokens
            (batch, length, channels); sizes known.
        attention_mask: booleans (batch or 1, length, length), True where a query (second axis) may see a key
            (third axis); None for all.
        return_attention_weights: whether to return the weights too.

    Output shape: the input's; with `return_attention_weights` a pair of it and
    (batch, num_heads, length, length).

    Raises:
        InvalidValueError: heads that do not divide the channels, an unknown position encoding, an input that
            is neither a map nor tokens of known size, a mask of another shape, a mask with a row that sees nothing
            (in eager calls; while a graph is traced no value is known, and such a row sees everything).

    Example:
        >>> MultiHeadSelfAttention(num_heads=4, position="sinusoidal")(keras.ops.ones((2, 5, 7, 32))).shape
        TensorShape([2, 5, 7, 32])
    """

    def __init__(self, num_heads: int, position: str | None = None, use_bias: bool = True, **kwargs):
        super().__init__(**kwargs)
        check_choice("position", position, POSITIONS)
        self.num_heads = check_positive("num_heads", num_heads)
        self.position = position
        self.use_bias = check_flag("use_bias", use_bias)

    def build(self, input_shape):
        self._check_input(input_shape)
        channels = input_shape[-1]
        if self.position == "relative_bias":  # its table is for one size
            self.input_spec = keras.layers.InputSpec(shape=(None, *input_shape[1:]))
        check_heads(self, channels, self.num_heads)
        options = dict(dtype=self.dtype_policy)
        if self.position == "relative_bias":
            self.position_bias = RelativePositionBias(
                self.num_heads, tuple(input_shape[1:3]), name="position_bias", **options
            )
            length = input_shape[1] * input_shape[2]
            self.position_bias.build((None, self.num_heads, length, length))
        elif self.position:
            encodings = {"sinusoidal": SinusoidalPositionEncoding, "learned": LearnedPositionEncoding}
            self.encoding = encodings[self.position](name="encoding", **options)
            self.encoding.build(input_shape)
        self.qkv = keras.layers.Dense(3 * channels, use_bias=self.use_bias, name="qkv", **options)
        self.qkv.build((None, None, channels))
        self.proj = keras.layers.Dense(channels, name="proj", **options)
        self.proj.build((None, None, channels))

    def _check_input(self, shape):
        ranks = (4,) if self.position == "relative_bias" else (3, 4)
        if len(shape) not in ranks or None in shape[1:]:
            tokens = "" if self.position == "relative_bias" else ", or tokens (batch, length, channels),"
            raise InvalidValueError(
                f"MultiHeadSelfAttention {self.name!r} takes maps (batch, height, width, channels){tokens} of known "
                f"size, got shape {tuple(shape)}"
            )

    def call(self, x, attention_mask=None, return_attention_weights=False):
        if keras.backend.backend() == "tensorflow" or return_attention_weights:
            weights, values = self.weights_and_values(x, attention_mask)
            y = self.mix(weights, values, x.shape)
            return (y, weights) if return_attention_weights else y
        query, key, value, bias, scale = self._parts(x, attention_mask)
        channels, length = x.shape[-1], int(np.prod(x.shape[1:-1]))
        query, key, value = (
            ops.reshape(each, (-1, length, self.num_heads, channels // self.num_heads)) for each in (query, key, value)
        )
        y = ops.dot_product_attention(query, key, value, bias=bias, scale=scale)
        y = ops.reshape(y, (-1, length, channels))
        return ops.reshape(self.proj(y), (-1, *x.shape[1:]))

    def weights_and_values(self, x, attention_mask=None):
        """The weights (batch, num_heads, N, N) and values (batch, num_heads, N, d) of N tokens."""
        query, key, value, bias, scale = self._parts(x, attention_mask)
        query, key, value = (split_heads(each, self.num_heads) for each in (query * scale, key, value))
        return weigh(query, key, bias), value

    def mix(self, weights, values, shape: tuple):
        """What the layer makes of an input of this shape with these weights and values."""
        return ops.reshape(self.proj(merge_heads(ops.matmul(weights, values))), (-1, *shape[1:]))

    def _parts(self, x, attention_mask):
        """Query, key and value (batch, N, channels), what is added to the logits, and the scale of the query."""
        self._check_input(x.shape)
        shape = x.shape
        channels, length = shape[-1], int(np.prod(shape[1:-1]))
        if attention_mask is not None:
            attention_mask = ops.convert_to_tensor(attention_mask)
            self._check_mask(attention_mask, shape[0], length)
        if self.position in ("sinusoidal", "learned"):
            x = self.encoding(x)
        qkv = self.qkv(ops.reshape(x, (-1, length, channels)))
        query, key, value = (qkv[..., i * channels : (i + 1) * channels] for i in range(3))
        bias = self._bias(attention_mask)
        return query, key, value, bias, (channels // self.num_heads) ** -0.5

    def _bias(self, attention_mask):
        """What is added to the logits, (batch or 1, heads or 1, length, length), or None."""
        bias = self.position_bias.bias()[None] if self.position == "relative_bias" else None
        if attention_mask is None:
            return bias
        mask = ops.convert_to_tensor(attention_mask, dtype="bool")
        mask = ops.expand_dims(ops.where(mask, 0.0, MASKED), axis=1)  # (B or 1, 1, N, N)
        return mask if bias is None else mask + ops.cast(bias, mask.dtype)

    def _check_mask(self, mask, batch: int | None, length: int) -> None:
        shape = tuple(mask.shape)
        if len(shape) != 3 or shape[1:] != (length, length) or (batch and shape[0] not in (1, batch, None)):
            raise InvalidValueError(
                f"attention_mask of {self.name!r} must have shape ({batch or 'batch'} or 1, {length}, {length}), "
                f"got {shape}"
            )
        if "float" in keras.backend.standardize_dtype(mask.dtype):
            raise InvalidValueError(
                f"attention_mask of {self.name!r} must hold booleans, True where a query may see a key, got "
                f"{keras.backend.standardize_dtype(mask.dtype)}; of numbers to be added, take mask == 0"
            )
        try:
            seen = np.asarray(mask).any(axis=-1)
        except (NotImplementedError, TypeError, ValueError):  # a tensor without values, while a graph is traced
            return
        if not seen.all():
            raise InvalidValueError(
                f"attention_mask of {self.name!r} hides every key from {(~seen).sum()} queries; each row of the last "
                "axis needs at least one True"
            )

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, x, attention_mask=None, return_attention_weights=False):
        y = keras.KerasTensor(x.shape, dtype=self.compute_dtype)
        if not return_attention_weights:
            return y
        length = int(np.prod(x.shape[1:-1]))
        weights = keras.KerasTensor((x.shape[0], self.num_heads, length, length), dtype=self.compute_dtype)
        return y, weights

    def macs(self, input_shape: tuple) -> int:
        """Multiply-adds for one map: `4 h w C² + 2 (h w)² C` (arXiv:2103.14030, equation 1)."""
        self._check_input(input_shape)
        channels, length = input_shape[-1], int(np.prod(input_shape[1:-1]))
        return 4 * length * channels**2 + 2 * length**2 * channels

    def absorb(self, scale: np.ndarray, offset: np.ndarray) -> tuple[keras.layers.Layer, list[np.ndarray]]:
        """A layer that gives `scale * y + offset` for each channel, and the weights to set once it is built."""
        return absorb_into(self, self.proj, scale, offset)

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "position": self.position,
            "use_bias": self.use_bias,
        }
