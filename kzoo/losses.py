"""The loss of every image, and of every pixel, without void, at the size of the predictions."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kzoo.data.split import READ_AT_ONCE, VOID, Split


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
class ClassificationLoss(keras.losses.Loss):
    """Cross-entropy, or binary cross-entropy, of logits, with weights of the classes.

    Args:
        binary: whether each class is told apart by itself: the mean of the classes' binary cross-entropies, as timm
            has it (arXiv:2110.00476).
        label_smoothing: share of the target that is spread over all classes, for both.
        class_weights: of the classes; an image has the mean of them in the shares of its target, before smoothing, and
            counts by it in the mean over the batch, which is over the number of images. Default: all 1.

    Call arguments:
        y_true: shares of the classes (n, classes), that sum to 1.
        y_pred: logits (n, classes).
        sample_weight: of the images (n,); default: all 1.

    Example:
        >>> loss = ClassificationLoss(binary=True, label_smoothing=0.1)(targets, logits)
    """

    def __init__(
        self,
        binary: bool = False,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        name: str = "classification_loss",
        **options,
    ):
        super().__init__(name=name, **options)
        self.binary = binary
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else [float(weight) for weight in class_weights]

    def call(self, y_true, y_pred):
        smooth = y_true * (1 - self.label_smoothing) + self.label_smoothing / y_pred.shape[-1]
        if self.binary:
            loss = keras.losses.binary_crossentropy(smooth, y_pred, from_logits=True)
        else:
            loss = keras.losses.categorical_crossentropy(smooth, y_pred, from_logits=True)
        if self.class_weights is None:
            return loss
        return loss * ops.matmul(y_true, ops.convert_to_tensor(self.class_weights, y_pred.dtype))

    def get_config(self):
        options = ("binary", "label_smoothing", "class_weights")
        return {**super().get_config(), **{option: getattr(self, option) for option in options}}


def balanced_weights(labels: np.ndarray, num_classes: int) -> list[float]:
    """Weights with which all classes count alike: images over classes that occur times images of the class.

    Args:
        labels: class of each training image.
        num_classes: number of classes.

    Returns:
        A weight for each class, as scikit-learn's "balanced"; 0 for one that never occurs.

    Example:
        >>> balanced_weights(np.array([0, 0, 0, 1]), 2)
        [0.6666666666666666, 2.0]
    """
    counts = np.bincount(labels, minlength=num_classes)
    return [len(labels) / (np.count_nonzero(counts) * count) if count else 0.0 for count in counts.tolist()]


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
        [
            np.bincount(mask.ravel(), minlength=256)[:num_classes]
            for batch in split.batches(READ_AT_ONCE)
            for mask in batch["mask"]
        ]
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
