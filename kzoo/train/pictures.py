"""Pictures of a run: its curves, and what the model made of test images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kzoo.escape import printable
from kzoo.files import atomic_path

RIGHT, WRONG = "#1b7837", "#b2182b"


def draw_curves(
    history: Sequence[dict[str, float]], path: Path, title: str, keys: Sequence[str] = ("loss", "accuracy")
) -> None:
    """Loss and a metric by epoch, training and validation, as a PNG."""
    figure, axes = _figure(1, 2, (10, 4))
    epochs = [row["epoch"] + 1 for row in history]
    for axis, key in zip(axes.flat, keys, strict=True):
        for prefix, label in (("", "training"), ("val_", "validation")):
            values = [row[prefix + key] for row in history]
            axis.plot(epochs, values, label=f"{label}: {values[-1]:.4f} at the end", marker="o", markersize=3)
        axis.set_xlabel("epoch")
        axis.set_ylabel(key.replace("_", " "))
        axis.grid(alpha=0.3)
        axis.legend()
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title, parse_math=False)
    _save(figure, path)


def draw_predictions(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], path: Path
) -> None:
    """A sheet of test images with what the model says: the worst mistakes first, then images in order.

    Args:
        images: (n, height, width, 3) pixels of 0 to 255.
        labels: (n,) true classes.
        probabilities: (n, classes).
        classes: names.
        path: of the PNG.
    """
    rows, columns = 5, 8
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-probabilities[wrong, predicted[wrong]])][: rows * columns // 2]
    others = [index for index in range(len(labels)) if index not in set(worst.tolist())]
    shown = [*worst.tolist(), *others][: rows * columns]

    figure, axes = _figure(rows, columns, (1.5 * columns, 1.8 * rows))
    for axis in axes.flat:
        axis.axis("off")
    for axis, index in zip(axes.flat, shown, strict=False):
        axis.imshow(np.asarray(images[index], "uint8"))
        right = predicted[index] == labels[index]
        text = f"{printable(classes[predicted[index]])} {probabilities[index].max():.0%}"
        if not right:
            text += f"\nis {printable(classes[labels[index]])}"
        axis.set_title(text, fontsize=9, color=RIGHT if right else WRONG, parse_math=False)
    figure.suptitle(f"{len(wrong)} of {len(labels)} test images wrong; the most confident mistakes first")
    _save(figure, path)


def _figure(rows: int, columns: int, size: tuple[float, float]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure, path: Path) -> None:
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=120)
