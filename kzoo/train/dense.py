"""Loss and metrics of every pixel, without void, at the size of the predictions."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kzoo.train.data import VOID, Split


def centre(masks, like):
    """Cuts masks (n, height, width) to the height and width of `like`, which an unpadded network makes smaller.

    Works on tensors and on arrays.
    """
    (height, width), (rows, columns) = ops.shape(masks)[1:3], ops.shape(like)[1:3]
    top, left = (height - rows) // 2, (width - columns) // 2
    return masks[:, top : top + rows, left : left + columns]


def pixel_weights(sample_weight, like):
    """Weights (n, height, width) of every pixel of `like`, from those of images or of pixels.

    Args:
        sample_weight: of images, (n,) or with further axes of one, or of the pixels of the masks (n, height, width).
        like: predictions (n, height, width, classes).
    """
    weights = ops.convert_to_tensor(sample_weight, like.dtype)
    if len(weights.shape) == 3 and weights.shape[1:] != (1, 1):
        return centre(weights, like)
    return ops.broadcast_to(ops.reshape(weights, (-1, 1, 1)), ops.shape(like)[:3])


def _dice(targets, probabilities, weights):
    """Mean over classes of one minus twice the overlap over the sum; all are (classes, pixels), weights (pixels,)."""
    overlap = ops.sum(weights * targets * probabilities, axis=1)
    sizes = ops.sum(weights * (targets + probabilities), axis=1)
    return ops.mean(1 - 2 * overlap / (sizes + keras.config.epsilon()))


@keras.saving.register_keras_serializable("kzoo")
class SegmentationLoss(keras.losses.Loss):
    """Cross-entropy plus `dice_weight` times Dice, of logits, over the pixels that are not void.

    Cross-entropy is the weighted mean over pixels, its weights those of their classes. Dice is the mean over classes
    of one minus twice the overlap over the sum, each over the whole batch. With sample weights an image of weight 2
    counts as two, in both parts, and one of weight 0 as none.

    Args:
        dice_weight: of the second part.
        class_weights: of the classes in the first; default: all 1.
        label_smoothing: of the first.

    Call arguments:
        y_true: masks (n, height, width), with `VOID`.
        y_pred: logits (n, height, width, classes), perhaps smaller than the masks.
        sample_weight: of the images (n,), or of the pixels (n, height, width); default: all 1.
    """

    def __init__(
        self,
        dice_weight: float = 0.0,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        name: str = "segmentation_loss",
        **options,
    ):
        super().__init__(name=name, **options)
        self.dice_weight = dice_weight
        self.class_weights = None if class_weights is None else [float(weight) for weight in class_weights]
        self.label_smoothing = label_smoothing

    def __call__(self, y_true, y_pred, sample_weight=None):
        return self.call(y_true, ops.convert_to_tensor(y_pred, self.dtype), sample_weight)

    def call(self, y_true, y_pred, sample_weight=None):
        number = y_pred.shape[-1]
        masks = ops.reshape(ops.cast(centre(y_true, y_pred), "int32"), [-1])
        # (classes, pixels): sums over classes then run over whole rows, which takes half the time on a CPU
        logits = ops.transpose(ops.reshape(y_pred, (-1, number)))
        targets = ops.one_hot(masks, number, axis=0, dtype=y_pred.dtype)  # nothing but zeros for void
        counted = ops.cast(ops.not_equal(masks, VOID), y_pred.dtype)
        if sample_weight is not None:
            counted = counted * ops.reshape(pixel_weights(sample_weight, y_pred), [-1])
        weights = counted
        if self.class_weights is not None:
            weights = counted * ops.matmul(ops.convert_to_tensor(self.class_weights, y_pred.dtype), targets)
        log_sum = ops.logsumexp(logits, axis=0)
        smooth = targets * (1 - self.label_smoothing) + self.label_smoothing / number
        surprise = log_sum - ops.sum(smooth * logits, axis=0)
        loss = ops.divide_no_nan(ops.sum(weights * surprise), ops.sum(weights))
        if self.dice_weight:
            loss += self.dice_weight * _dice(targets, ops.exp(logits - log_sum), counted)
        return loss

    def get_config(self):
        options = ("dice_weight", "class_weights", "label_smoothing")
        return {**super().get_config(), **{option: getattr(self, option) for option in options}}


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


def class_weights(split: Split, num_classes: int, kind: str) -> list[float]:
    """Weights against rare classes being forgotten, from the masks of a split.

    Args:
        split: the training images.
        num_classes: their number.
        kind: `"median_frequency"` (SegNet, arXiv:1511.00561, section 4.1): the median of the frequencies over the
            frequency of the class, which is its share of the pixels in the images where it occurs. `"log"` (ENet,
            arXiv:1606.02147, section 5.2): 1 / ln(1.02 + its share of all pixels).

    Returns:
        A weight for each class; 0 for one that never occurs.
    """
    counts = np.stack(
        [np.bincount(mask.ravel(), minlength=256)[:num_classes] for _, mask in split.dataset.as_numpy_iterator()]
    )
    pixels = counts.sum(axis=0)
    seen = pixels > 0
    weights = np.zeros(num_classes)
    if kind == "median_frequency":
        available = ((counts > 0) * counts.sum(axis=1, keepdims=True)).sum(axis=0)
        frequency = pixels[seen] / available[seen]
        weights[seen] = np.median(frequency) / frequency
    else:
        weights[seen] = 1 / np.log(1.02 + pixels[seen] / pixels.sum())
    return weights.tolist()


class Confusion:
    """Counts of true and predicted classes, kept for each image.

    Args:
        classes: names.
    """

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self.images: list[np.ndarray] = []

    def add(self, outputs: np.ndarray, masks: np.ndarray) -> None:
        """Counts predictions (n, height, width, classes), whose largest value wins, against masks."""
        number = len(self.classes)
        for output, mask in zip(outputs.argmax(axis=-1), centre(masks, outputs), strict=True):
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
