"""Pictures and tables of class probabilities: who is taken for whom, calibration, ROC and precision-recall."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kzoo.escape import printable, short
from kzoo.files import atomic_path
from kzoo.report.judging import Reliability, ranking
from kzoo.report.plots import RIGHT, new_figure, save_figure

COUNTED, ALL = 40, 100  # classes of a matrix up to which it has counts, and up to which it has them all
CURVES = 10


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence]) -> None:
    """A CSV file in UTF-8, a line for each row; what is None is an empty cell.

    Text that a spreadsheet would take for a formula has an apostrophe before it (CWE-1236); numbers stay numbers.
    """
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in (header, *rows):
            writer.writerow([_as_text(cell) if isinstance(cell, str) else cell for cell in row])


def _as_text(cell: str) -> str:
    shown = printable(cell)
    return f"'{shown}" if shown.lstrip().startswith(("=", "+", "-", "@")) else shown


def write_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """All counts (classes, classes) as CSV: a line for each true class, a column for each predicted one."""
    rows = [[name, *counts.tolist()] for name, counts in zip(classes, matrix, strict=True)]
    write_table(path, ["true \\ predicted", *classes], rows)


def choose_classes(matrix: np.ndarray, most: int = COUNTED) -> np.ndarray:
    """The numbers of the classes that a matrix of counts (classes, classes) shows, ascending.

    Of more than `most` classes they are the 40 with the most mistakes, those where they were taken for another and
    where another was taken for them.

    >>> choose_classes(np.array([[5, 1], [0, 7]]))
    array([0, 1])
    """
    if len(matrix) <= most:
        return np.arange(len(matrix))
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    return np.sort(np.argsort(-mistakes, kind="stable")[:COUNTED])


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Counts (classes, classes) as a PNG, coloured by the share of the true class.

    Up to 40 classes each cell has its count. Of more than 100 classes, the 40 of `choose_classes` are shown.
    """
    kept = choose_classes(matrix, ALL)
    title = f"{matrix.trace():,} of {matrix.sum():,} images right; colour: share of the true class"
    if len(kept) < len(classes):
        title += f"\nthe {COUNTED} of {len(classes):,} classes with the most mistakes; the table has all"
    counts = matrix[np.ix_(kept, kept)]
    shares = counts / np.maximum(matrix.sum(axis=1), 1)[kept, None]
    names = [short(classes[index]) for index in kept.tolist()]

    side = float(np.clip(0.42 * len(kept) + 3, 5.5, 17))
    size = float(np.clip(72 * 0.6 * (side - 3) / len(kept), 4, 9))
    figure = new_figure((side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # by which a few mistakes are seen too
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(np.arange(len(kept)), names, fontsize=size, parse_math=False)
    axes.tick_params(axis="x", rotation=90)
    axes.set(xlabel="predicted", ylabel="true")
    if len(kept) <= COUNTED:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.3 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", size=size, color=colour, ha="center", va="center")
    figure.suptitle(title, size=10)
    save_figure(figure, path)


def draw_reliability(bins: Reliability, path: Path) -> None:
    """Accuracy and number of images by confidence, as a PNG (Guo 2017, arXiv:1706.04599, figure 1)."""
    figure = new_figure((5.5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = 1 / len(bins.counts)
    middles = (np.arange(len(bins.counts)) + 0.5) * width
    some = bins.counts > 0
    upper.bar(middles[some], bins.accuracy[some], width, color=RIGHT, alpha=0.5, edgecolor=RIGHT, label="accuracy")
    upper.plot(bins.confidence[some], bins.accuracy[some], "o", color=RIGHT, markersize=4, label="at mean confidence")
    upper.plot((0, 1), (0, 1), "--", color="black", linewidth=1, label="calibrated")
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    upper.legend(loc="upper left")
    lower.bar(middles, bins.counts, width, color="grey", edgecolor="white")
    lower.set(xlabel="confidence: the largest probability", ylabel="images")
    figure.suptitle(f"expected calibration error {bins.error:.4f}, {len(bins.counts)} bins", size=10)
    save_figure(figure, path)


def draw_ranking(truth: np.ndarray, scores: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """ROC and precision-recall curves as a PNG, with their areas.

    Of more than ten classes, the ten with the lowest average precision are shown. A class that no image has, or every
    image, has no curves.

    Args:
        truth: (n, classes) of 0 and 1.
        scores: (n, classes).
        classes: names.
        path: of the PNG.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    pairs = {index: ranking(truth[:, index], scores[:, index]) for index in range(len(classes))}
    areas = {index: (area, precision) for index, (area, precision) in pairs.items() if area is not None}
    lowest = sorted(areas, key=lambda index: areas[index][1] or 0)[:CURVES]
    figure = new_figure((10, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index in sorted(lowest):
        false, true, _ = roc_curve(truth[:, index], scores[:, index])
        precision, recall, _ = precision_recall_curve(truth[:, index], scores[:, index])
        name = short(classes[index])
        left.plot(false, true, label=f"{name}: area {areas[index][0]:.4f}")
        right.step(recall, precision, where="post", label=f"{name}: average precision {areas[index][1]:.4f}")
    left.plot((0, 1), (0, 1), "--", color="black", linewidth=1)
    left.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    right.set(xlabel="recall", ylabel="precision", title="precision and recall", ylim=(0, 1.02))
    for axes, corner in ((left, "lower right"), (right, "lower left")):
        axes.grid(alpha=0.3)
        if lowest:
            for text in axes.legend(fontsize=8, loc=corner).get_texts():
                text.set_parse_math(False)
    if len(lowest) < len(areas):
        figure.suptitle(f"the {len(lowest)} of {len(classes)} classes with the lowest average precision", size=10)
    save_figure(figure, path)
