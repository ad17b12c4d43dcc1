"""Plain arithmetic of a tensor and a constant, read from its call."""

import keras
import numpy as np

Constant = np.ndarray | np.float64


def operation_scale_and_offset(operation: keras.Operation, args: tuple) -> tuple[Constant, Constant] | None:
    """`(s, o)` of `s x + o`, which `x + c`, `c + x`, `x - c`, `c - x`, `x * c`, `c * x` and `x / c` are.

    Args:
        operation: a plain operation.
        args: arguments of its call, as the config writes them.

    Returns:
        Scale and offset in the shape of the constant, or numbers. None for all else: another operation, two tensors,
        a constant over a tensor.
    """
    kind = type(operation).__name__
    if isinstance(operation, keras.layers.Layer) or len(args) != 2:
        return None
    if kind not in ("Add", "Subtract", "Multiply", "Divide", "TrueDivide"):
        return None
    first, second = (keras.saving.deserialize_keras_object(arg) for arg in args)
    swapped = isinstance(second, keras.KerasTensor)
    constant = first if swapped else second
    if isinstance(constant, keras.KerasTensor):
        return None
    constant = np.asarray(keras.ops.convert_to_numpy(constant), "float64")
    one, zero = np.float64(1), np.float64(0)
    if kind in ("Divide", "TrueDivide"):
        with np.errstate(divide="ignore"):
            return None if swapped else (one / constant, zero)
    if kind == "Subtract":
        return (-one, constant) if swapped else (one, -constant)
    return (one, constant) if kind == "Add" else (constant, zero)
