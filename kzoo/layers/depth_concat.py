"""Joining maps of different sizes."""

import keras
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import check_feature_map

WIDEST = 5  # tensors in one concatenation that the XNNPACK delegate still takes


@keras.saving.register_keras_serializable(package="kzoo")
class DepthConcat(keras.layers.Layer):
    """Concatenates maps along the channels after padding the smaller ones with zeros to the largest size.

    Each map is centred: its top-left corner comes to `floor((H - H_i) / 2)`, `floor((W - W_i) / 2)`, where H and W
    are the largest height and width, as in Torch7's `nn.DepthConcat`. It joins the branches of an inception
    module (arXiv:1409.4842, Figure 2, "filter concatenation") when they do not pad. More than five maps are
    concatenated in groups, which the XNNPACK delegate takes where it refuses a wide concatenation.

    Input shape: a list of (batch, H_i, W_i, C_i), H_i and W_i known.
    Output shape: (batch, max H_i, max W_i, sum of C_i).

    Raises:
        InvalidValueError: no list, an empty list, batch sizes that differ, an input that is no map of known size.

    Example:
        >>> maps = [keras.ops.ones((2, 5, 7, 8)), keras.ops.ones((2, 3, 3, 16))]
        >>> DepthConcat()(maps).shape
        TensorShape([2, 5, 7, 24])
    """

    def __init__(self, **kwargs):  # without this signature Keras adds arguments of its own to the config
        super().__init__(**kwargs)

    def build(self, input_shape):
        self.compute_output_shape(input_shape)  # for its checks

    def call(self, maps):
        _, height, width, _ = self.compute_output_shape([tuple(x.shape) for x in maps])
        maps = [_pad(x, height, width) for x in maps]
        while len(maps) > 1:
            groups = [maps[start : start + WIDEST] for start in range(0, len(maps), WIDEST)]
            maps = [ops.concatenate(group, axis=-1) if len(group) > 1 else group[0] for group in groups]
        return maps[0]

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds: maps are copied."""
        return 0

    def compute_output_shape(self, input_shape):
        shapes = list(input_shape or ())
        if not shapes or any(shape is None or isinstance(shape, int) for shape in shapes):  # a shape, not a list
            raise InvalidValueError(
                f"DepthConcat {self.name!r} takes a list of one map or more, got shape {tuple(input_shape)}"
            )
        channels = sum(check_feature_map(self, shape, static=True) for shape in shapes)
        batches = {shape[0] for shape in shapes} - {None}
        if len(batches) > 1:
            raise InvalidValueError(
                f"DepthConcat {self.name!r} takes maps of one batch size, got the shapes "
                f"{', '.join(str(tuple(shape)) for shape in shapes)}"
            )
        height, width = (max(shape[axis] for shape in shapes) for axis in (1, 2))
        return batches.pop() if batches else None, height, width, channels


def _pad(x, height: int, width: int):
    """Zeros around a map, one more at the bottom and right where they cannot be equal."""
    rows, columns = height - x.shape[1], width - x.shape[2]
    if not (rows or columns):
        return x
    top, left = rows // 2, columns // 2
    return ops.pad(x, ((0, 0), (top, rows - top), (left, columns - left), (0, 0)))
