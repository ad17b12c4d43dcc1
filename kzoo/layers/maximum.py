"""The maximum, with a gradient that compilers cannot lose."""

from keras import ops


def maximum(x, axis: int | tuple[int, ...], training: bool | None):
    """`max(x)` along axes, which stay with size 1; while training its gradient goes to the first of the largest.

    TensorFlow and JAX divide the gradient among all `x == max(x)`. A compiler that computes `x` anew for the
    comparison, rounded in another way, finds none of them equal, and the gradient is 0 / 0. Positions are not
    rounded, and one is always found.

    Args:
        x: any tensor.
        axis: one or several.
        training: whether gradients are taken; otherwise this is one operation, which LiteRT has too.

    Returns:
        As `x`, with size 1 along `axis`.

    Example:
        >>> maximum(keras.ops.convert_to_tensor([[1.0, 3.0, 3.0]]), axis=-1, training=True)
        <tf.Tensor: shape=(1, 1), dtype=float32, numpy=array([[3.]], dtype=float32)>
    """
    if not training:
        return ops.max(x, axis=axis, keepdims=True)
    for each in (axis,) if isinstance(axis, int) else axis:
        first = ops.argmax(ops.stop_gradient(x), axis=each, keepdims=True)
        positions = [1] * len(x.shape)
        positions[each] = -1
        chosen = ops.equal(ops.reshape(ops.arange(ops.shape(x)[each], dtype=first.dtype), positions), first)
        x = ops.sum(ops.where(chosen, x, ops.zeros_like(x)), axis=each, keepdims=True)
    return x
