"""Pictures of a run: its curves, and what the model made of test images."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kzoo.escape import short
from kzoo.files import atomic_path

RIGHT, WRONG = "#1b7837", "#b2182b"
ROWS, COLUMNS = 5, 8  # of a sheet of predictions
LONGEST_IN_CELL = 14  # characters of a name above an image of a sheet


def draw_curves(
    history: Sequence[dict[str, float]], path: Path, title: str, keys: Sequence[str] = ("loss", "accuracy")
) -> None:
    """Loss and a metric by epoch, training and validation, as a PNG."""
    figure = new_figure((10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in history]
    for axis, key in zip(axes, keys, strict=True):
        for prefix, label in (("", "training"), ("val_", "validation")):
            if prefix + key not in history[0]:  # which is measured on validation images alone
                continue
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
    predicted = probabilities.argmax(axis=1)
    wrong, right = np.flatnonzero(predicted != labels), np.flatnonzero(predicted == labels)
    wrong = wrong[np.argsort(-probabilities[wrong, predicted[wrong]])]

    def text(index: int) -> str:
        said = f"{short(classes[predicted[index]], LONGEST_IN_CELL)} {probabilities[index].max():.0%}"
        if predicted[index] == labels[index]:
            return said
        return f"{said}\nis {short(classes[labels[index]], LONGEST_IN_CELL)}"

    _draw_sheet(read, wrong, right, text, path)


def draw_label_sheet(
    read: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    path: Path,
) -> None:
    """The sheet of `draw_predictions` for images with several labels, which are there from one half on.

    Above an image with a wrong label is the one that is most wrong, and how many are wrong besides; above the others
    are their labels.

    Args:
        read: as of `draw_predictions`.
        labels: (n, classes) of 0 and 1.
        probabilities: (n, classes).
        classes: names.
        path: of the PNG.
    """
    errors = np.abs(probabilities - labels)
    number_wrong = ((probabilities >= 0.5) != labels).sum(axis=1)
    wrong, right = np.flatnonzero(number_wrong), np.flatnonzero(number_wrong == 0)
    wrong = wrong[np.argsort(-errors[wrong].max(axis=1), kind="stable")]

    def text(index: int) -> str:
        if not number_wrong[index]:
            names = ", ".join(classes[number] for number in np.flatnonzero(labels[index]).tolist())
            return short(names or "none")
        one = int(errors[index].argmax())
        more = f", {number_wrong[index] - 1} more" if number_wrong[index] > 1 else ""
        said = f"{short(classes[one], LONGEST_IN_CELL)} {probabilities[index, one]:.0%}"
        return f"{said}\nis {'' if labels[index, one] else 'not '}there{more}"

    _draw_sheet(read, wrong, right, text, path)


def _draw_sheet(
    read: Callable[[np.ndarray], np.ndarray],
    wrong: np.ndarray,
    right: np.ndarray,
    text: Callable[[int], str],
    path: Path,
) -> None:
    """Images with a text above each: the first of those that are wrong, then some of those that are right."""
    room = ROWS * COLUMNS
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
        colour, above = WRONG if place < len(worst) else RIGHT, text(index)
        axis.text(column + 0.5, top - 0.02, above, size=9, color=colour, ha="center", va="bottom", parse_math=False)
    axis.set(xlim=(0, columns), ylim=(rows, 0))  # each picture has set limits of its own
    figure.suptitle(_about_sheet(len(wrong) + len(right), len(wrong), len(worst), len(others)))
    save_figure(figure, path)


def _about_sheet(number: int, wrong: int, worst: int, others: int) -> str:
    """The title of a sheet: of how many images how many are wrong, and which are shown."""
    parts = [f"{wrong} of {number} images wrong"]
    if worst:
        these = "these" if worst == wrong else f"{worst} of these"
        parts.append("this one first" if wrong == 1 else f"{these} first, most confident first")
    if others:
        parts.append(f"{'then ' if worst else ''}{others} that {'is' if others == 1 else 'are'} right")
    return ": ".join([parts[0], "; ".join(parts[1:])])


def new_figure(size: tuple[float, float], **options):
    """An empty matplotlib figure of this width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, **options)


def save_figure(figure, path: Path) -> None:
    """Writes a figure as the ending of its path says; letters that the font lacks are boxes, without a warning."""
    with atomic_path(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        figure.savefig(partial, dpi=120)
