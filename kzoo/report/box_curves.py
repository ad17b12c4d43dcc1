"""Pictures of how well boxes are found: precision by recall, and errors by their kind."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kzoo.detection.average_precision import KINDS, RECALLS
from kzoo.escape import short
from kzoo.report.diagrams import CURVES
from kzoo.report.plots import WRONG, new_figure, save_figure


def draw_precision_recall(
    curves: Mapping[str, np.ndarray], ap50_by_class: Mapping[str, float | None], path: Path
) -> None:
    """Precision by recall of each class at an overlap of one half, with the area below it, as a PNG.

    Of more than ten classes, the ten with the lowest average precision are shown. A class without a box has no curve.

    Args:
        curves: precision (101,) at `RECALLS` of each class that is there, as `AveragePrecision.curves` gives.
        ap50_by_class: as `AveragePrecision.scores` gives.
        path: of the PNG.
    """
    lowest = sorted(curves, key=lambda name: ap50_by_class[name] or 0.0)[:CURVES]
    figure = new_figure((6, 5), layout="constrained")
    axes = figure.subplots()
    for name in curves:
        if name in lowest:
            axes.plot(RECALLS, curves[name], label=f"{short(name)}: AP50 {ap50_by_class[name]:.4f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    if lowest:
        for text in axes.legend(fontsize=8, loc="lower left").get_texts():
            text.set_parse_math(False)
    title = "precision and recall at an overlap of one half"
    if len(lowest) < len(curves):
        title += f"\nthe {len(lowest)} of {len(ap50_by_class)} classes with the lowest average precision"
    figure.suptitle(title, size=10)
    save_figure(figure, path)


def draw_errors(errors: Mapping[str, int], boxes: int, path: Path) -> None:
    """How many boxes are missed, and how many detections are wrong, by their kind, as a PNG.

    Args:
        errors: number of each of `KINDS`, as `AveragePrecision.errors` gives.
        boxes: that are there, of which some are missed.
        path: of the PNG.
    """
    figure = new_figure((6, 3), layout="constrained")
    axes = figure.subplots()
    counts = [errors[kind] for kind in KINDS]
    bars = axes.barh([kind.replace("_", " ") for kind in KINDS], counts, color=WRONG)
    bars[KINDS.index("missed")].set_color("grey")
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3)
    axes.invert_yaxis()  # the first kind uppermost
    axes.set(xlabel="boxes and detections", xlim=(0, 1.12 * max(*counts, 1)))
    axes.xaxis.get_major_locator().set_params(integer=True)
    wrong = sum(counts) - errors["missed"]
    figure.suptitle(f"{errors['missed']:,} of {boxes:,} boxes missed; {wrong:,} detections wrong", size=10)
    save_figure(figure, path)
