"""Mean intersection over union, without void: in `compile`, and of finished models."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from kzoo.data.split import VOID
from kzoo.losses import centre, pixel_weights


@keras.saving.register_keras_serializable("kzoo")
class MeanIoU(keras.metrics.MeanIoU):
    """`keras.metrics.MeanIoU` of masks with `VOID` and logits, over the pixels that are not void."""

    def __init__(self, num_classes: int, name: str = "mean_iou", dtype=None):
        # Keras counts in integers, which would cut the weights of samples off
        super().__init__(num_classes, name=name, dtype=dtype or "float32", ignore_class=VOID, sparse_y_pred=False)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Counts as Keras does, by a product and not by a scatter, which takes three times as long on a CPU.

        A pixel counts as often as its `sample_weight`, of images (n,) or of pixels (n, height, width), says.
        """
        number = self.num_classes
        predicted = ops.argmax(y_pred, axis=-1)
        rows, columns = ops.shape(predicted)[1:3]

        def one_hot(labels):  # (n, pixels, classes); nothing but zeros for void
            return ops.reshape(ops.one_hot(labels, number, dtype="float32"), (-1, rows * columns, number))

        truth = one_hot(ops.cast(centre(y_true, y_pred), "int32"))
        if sample_weight is not None:
            weights = ops.cast(pixel_weights(sample_weight, y_pred), "float32")
            truth = truth * ops.reshape(weights, (-1, rows * columns, 1))
        truth = ops.transpose(truth, (0, 2, 1))
        counts = ops.matmul(truth, one_hot(predicted))  # exact up to 16 million pixels an image
        self.total_cm.assign(self.total_cm + ops.sum(ops.cast(counts, self.dtype), axis=0))

    def get_config(self):
        config = super().get_config()
        return {key: config[key] for key in ("num_classes", "name", "dtype")}


class Confusion:
    """Counts of true and predicted classes, kept for each image.

    Args:
        classes: names.
    """

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self.images: list[np.ndarray] = []

    def add(self, outputs: np.ndarray, examples: Mapping[str, np.ndarray]) -> None:
        """Counts predictions (n, height, width, classes), whose largest value wins, against the `mask` of each."""
        number = len(self.classes)
        for output, mask in zip(outputs.argmax(axis=-1), centre(examples["mask"], outputs), strict=True):
            valid = mask != VOID
            pairs = mask[valid].astype("int64") * number + output[valid]
            self.images.append(np.bincount(pairs, minlength=number**2).reshape(number, number))

    def scores(self) -> dict:
        """Mean IoU over the classes that occur, pixel accuracy, mean Dice, and IoU and Dice of each class."""
        matrix = np.sum(self.images, axis=0)
        iou, dice = _overlaps(matrix)
        return {
            "mean_iou": _mean(iou),
            "accuracy": float(matrix.trace() / max(matrix.sum(), 1)),
            "dice": _mean(dice),
            "iou_by_class": _by_class(self.classes, iou),
            "dice_by_class": _by_class(self.classes, dice),
        }

    def mean_iou_by_image(self) -> np.ndarray:
        """(n,) mean IoU of each image, over the classes that occur in it."""
        return np.array([_mean(_overlaps(matrix)[0]) for matrix in self.images])


def _overlaps(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU and Dice of each class; NaN for one that neither occurs nor is predicted."""
    both, sizes = np.diag(matrix).astype(float), matrix.sum(axis=0) + matrix.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return both / (sizes - both), 2 * both / sizes


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0


def _by_class(classes: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: float(value) if np.isfinite(value) else None for name, value in zip(classes, values, strict=True)}
