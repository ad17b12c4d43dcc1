"""Pictures of a run: its curves, and what the model made of test images."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kzoo.escape import printable
from kzoo.files import atomic_path

RIGHT, WRONG = "#1b7837", "#b2182b"
ROWS, COLUMNS = 5, 8  # of a sheet of predictions
LONGEST, LONGEST_IN_CELL = 24, 14  # characters of a name in a picture, and above an image of a sheet


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
    """A sheet of up to 40 images with what the model says; its title tells which.

    First come the mistakes, the most confident first: 20 at most, or more where few images are right. Then those that
    are right, evenly over all of them, so that of classes in a row none is left out.

    Args:
        read: function from numbers of images, ascending, to their pixels of 0 to 255, (numbers, height, width, 3); it
            is asked for those that are shown alone.
        labels: (n,) true classes.
        probabilities: (n, classes).
        classes: names.
        path: of the PNG.
    """
    predicted, room = probabilities.argmax(axis=1), ROWS * COLUMNS
    wrong, right = np.flatnonzero(predicted != labels), np.flatnonzero(predicted == labels)
    wrong = wrong[np.argsort(-probabilities[wrong, predicted[wrong]])]
    worst = wrong[: max(room // 2, room - len(right))]
    others = right[np.linspace(0, len(right) - 1, min(len(right), room - len(worst))).round().astype(int)]
    shown = np.concatenate([worst, others])
    rows, columns = -(-len(shown) // COLUMNS), COLUMNS
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
        is_right = predicted[index] == labels[index]
        text = f"{short(classes[predicted[index]], LONGEST_IN_CELL)} {probabilities[index].max():.0%}"
        if not is_right:
            text += f"\nis {short(classes[labels[index]], LONGEST_IN_CELL)}"
        colour = RIGHT if is_right else WRONG
        axis.text(column + 0.5, top - 0.02, text, size=9, color=colour, ha="center", va="bottom", parse_math=False)
    axis.set(xlim=(0, columns), ylim=(rows, 0))  # each picture has set limits of its own
    parts = [f"{len(wrong)} of {len(labels)} images wrong"]
    if len(worst):
        these = "these" if len(worst) == len(wrong) else f"{len(worst)} of these"
        parts.append("this one first" if len(wrong) == 1 else f"{these} first, most confident first")
    if len(others):
        parts.append(f"{'then ' if len(worst) else ''}{len(others)} that are right")
    figure.suptitle(": ".join([parts[0], "; ".join(parts[1:])]))
    save_figure(figure, path)


def short(name: str, longest: int = LONGEST) -> str:
    """A name of one line, cut to so many characters, that leaves room for the picture."""
    shown = printable(name)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def new_figure(size: tuple[float, float], **options):
    """An empty matplotlib figure of this width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, **options)


def save_figure(figure, path: Path) -> None:
    """Writes a figure as a PNG; letters that the font lacks are boxes, without a warning."""
    with atomic_path(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        figure.savefig(partial, dpi=120)
