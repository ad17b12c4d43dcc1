"""Numbers that tell how good class probabilities are: by class, with an interval, calibrated or not."""

from typing import NamedTuple

import numpy as np

BINS = 15
TOP = 5
LEAST = 1e-7  # of a probability in a logarithm, as in the cross-entropy of reports
TEMPERATURES = (0.05, 20.0)


class ByClass(NamedTuple):
    """Of each class, (classes,): NaN where a share is one of nothing.

    Attributes:
        precision: share of the images that got this class which have it; NaN for a class that is never predicted.
        recall: share of its images that got it; NaN for a class that never occurs.
        f1: harmonic mean of both, 2 tp / (2 tp + fp + fn); NaN for a class that neither occurs nor is predicted.
        support: number of its images.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray

    def macro(self, values: np.ndarray) -> float:
        """The mean over the classes that occur, in which what is NaN counts as 0; NaN if none occurs."""
        occurs = self.support > 0
        return float(np.nan_to_num(values[occurs]).mean()) if occurs.any() else float("nan")


def judge_by_class(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> ByClass:
    """Precision, recall, F1 and support by `sklearn.metrics.precision_recall_fscore_support`.

    Args:
        labels: true classes (n,), or 0 and 1 of several labels (n, classes).
        predicted: the same of what the model says.
        num_classes: number of classes, of which some may never occur.

    Example:
        >>> judge_by_class(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).recall
        array([0.5, 1. ])
    """
    from sklearn.metrics import precision_recall_fscore_support

    return ByClass(
        *precision_recall_fscore_support(labels, predicted, labels=np.arange(num_classes), zero_division=np.nan)
    )


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """(classes, classes) counts of images: a row for each true class, a column for each predicted one."""
    from sklearn.metrics import confusion_matrix as count

    return count(labels, predicted, labels=np.arange(num_classes))


def interval_of_share(right: int, number: int) -> tuple[float, float]:
    """95 % confidence interval of a share, after Wilson (1927, doi:10.1080/01621459.1927.10502953).

    It holds for images that were drawn one by one; a share of 0 or 1 has an interval too.

    Example:
        >>> [round(side, 3) for side in interval_of_share(359, 360)]
        [0.984, 1.0]
    """
    from scipy.stats import binomtest

    interval = binomtest(right, number).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def top_accuracy(probabilities: np.ndarray, labels: np.ndarray, count: int = TOP) -> float:
    """Share of images whose class is among the `count` most probable; of equal ones the first come first."""
    picked = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    ahead = (probabilities > picked) | ((probabilities == picked) & before)
    return float((ahead.sum(axis=1) < count).mean())


class Reliability(NamedTuple):
    """Images in bins of equal width by their confidence, the largest probability (Guo 2017, arXiv:1706.04599).

    Attributes:
        counts: (bins,) number of images.
        confidence: (bins,) mean confidence; NaN without images.
        accuracy: (bins,) share that is right; NaN without images.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error, equation 3: the mean over images of |accuracy - confidence| of their bin."""
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((self.counts * gaps).sum() / self.counts.sum())


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Bins (0, 1/15], (1/15, 2/15] and so on of the confidences of class probabilities (n, classes).

    Example:
        >>> round(reliability(np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([0, 0])).error, 6)
        0.4
    """
    confidence = probabilities.max(axis=1).astype("float64")
    right = probabilities.argmax(axis=1) == labels
    places = np.digitize(confidence, np.arange(1, bins) / bins, right=True)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            counts,
            np.bincount(places, confidence, minlength=bins) / counts,
            np.bincount(places, right, minlength=bins) / counts,
        )


def ranking(truth: np.ndarray, scores: np.ndarray) -> tuple[float | None, float | None]:
    """Area under the ROC curve and average precision of scores (n,) for what is 1 in `truth` (n,).

    None where it has no meaning: no 1, for the area no 0 either, or a score that is no finite number.

    Example:
        >>> ranking(np.array([0, 1, 1]), np.array([0.2, 0.1, 0.8]))
        (0.5, 0.8333333333333333)
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    ones = int(truth.sum())
    if not ones or not np.isfinite(scores).all():
        return None, None
    area = float(roc_auc_score(truth, scores)) if ones < len(truth) else None
    return area, float(average_precision_score(truth, scores))


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The softmax of logits / temperature, for probabilities (n, classes) in place of the logits.

    The logarithm of a softmax is its logits up to a number that all classes share; a probability of 0, as rounding to
    8 bits leaves, counts as the smallest of the others.
    """
    from scipy.special import softmax

    return softmax(_logits(probabilities) / temperature, axis=1)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature from 0.05 to 20 at which the cross-entropy is smallest (Guo 2017, section 4.2).

    The cross-entropy is convex in 1 / temperature, so there is one minimum. Where every image is right there is none,
    as it falls for ever the smaller the temperature: None. It is at the end of the range where the probabilities say
    nothing.

    Example:
        >>> fit_temperature(np.array([[0.99, 0.01]] * 4), np.array([0, 0, 0, 1]))  # right three times of four
        4.18265832...
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if (probabilities.argmax(axis=1) == labels).all():
        return None
    logits = _logits(probabilities)
    picked = logits[np.arange(len(labels)), labels]

    def loss(exponent: float) -> float:
        inverse = np.exp(-exponent)
        return float(np.mean(logsumexp(inverse * logits, axis=1) - inverse * picked))

    found = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _logits(probabilities: np.ndarray) -> np.ndarray:
    smallest = np.min(probabilities, initial=1, where=probabilities > 0)
    return np.log(np.maximum(probabilities.astype("float64"), smallest))
