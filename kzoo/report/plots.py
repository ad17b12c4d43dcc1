"""Pictures of a run: its curves, and what the model made of test images."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kzoo.escape import printable
from kzoo.files import atomic_path

RIGHT, WRONG = "#1b7837", "#b2182b"


def draw_curves(
    history: Sequence[dict[str, float]], path: Path, title: str, keys: Sequence[str] = ("loss", "accuracy")
) -> None:
    """Loss and a metric by epoch, training and validation, as a PNG."""
    figure = new_figure((10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in history]
    for axis, key in zip(axes, keys, strict=True):
        for prefix, label in (("", "training"), ("val_", "validation")):
            values = [row[prefix + key] for row in history]
            axis.plot(epochs, values, label=f"{label}: {values[-1]:.4f} at the end", marker="o", markersize=3)
        axis.set_xlabel("epoch")
        axis.set_ylabel(key.replace("_", " "))
        axis.grid(alpha=0.3)
        axis.legend()
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def draw_predictions(
    read: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    path: Path,
) -> None:
    """A sheet of images with what the model says: the worst mistakes first, then images in order.

    Args:
        read: function from numbers of images, ascending, to their pixels of 0 to 255, (numbers, height, width, 3); it
            is asked for those that are shown alone.
        labels: (n,) true classes.
        probabilities: (n, classes).
        classes: names.
        path: of the PNG.
    """
    rows, columns = 5, 8
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-probabilities[wrong, predicted[wrong]])][: rows * columns // 2]
    others = np.setdiff1d(np.arange(min(len(labels), 2 * rows * columns)), worst)
    shown = np.concatenate([worst, others])[: rows * columns]
    images = dict(zip(np.sort(shown).tolist(), read(np.sort(shown)), strict=True))

    figure = new_figure((1.5 * columns, 1.8 * rows + 0.4))
    axis = figure.add_axes((0, 0, 1, 1.8 * rows / (1.8 * rows + 0.4)))  # one for all, as each takes long to draw
    axis.axis("off")
    for place, index in enumerate(shown.tolist()):
        row, column = divmod(place, columns)
        image = np.asarray(images[index], "uint8")
        width, height = (0.9 * side / max(image.shape[:2]) for side in (image.shape[1], image.shape[0]))
        height *= 1.5 / 1.8  # a cell is higher than wide
        left, top = column + 0.5 - width / 2, row + 0.6 - height / 2
        axis.imshow(image, extent=(left, left + width, top + height, top), aspect="auto")
        right = predicted[index] == labels[index]
        text = f"{printable(classes[predicted[index]])} {probabilities[index].max():.0%}"
        if not right:
            text += f"\nis {printable(classes[labels[index]])}"
        colour = RIGHT if right else WRONG
        axis.text(column + 0.5, top - 0.02, text, size=9, color=colour, ha="center", va="bottom", parse_math=False)
    axis.set(xlim=(0, columns), ylim=(rows, 0))  # each picture has set limits of its own
    figure.suptitle(f"{len(wrong)} of {len(labels)} images wrong; the most confident mistakes first")
    save_figure(figure, path)


def new_figure(size: tuple[float, float], **options):
    """An empty matplotlib figure of this width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, **options)


def save_figure(figure, path: Path) -> None:
    """Writes a figure as a PNG; letters that the font lacks are boxes, without a warning."""
    with atomic_path(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        figure.savefig(partial, dpi=120)
