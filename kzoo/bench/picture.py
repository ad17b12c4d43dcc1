"""The report as a picture: bars of the times, with their ratios."""

from collections.abc import Sequence
from pathlib import Path

from kzoo.bench.report import BenchReport, ModelBench, Row, short
from kzoo.bench.subjects import CEILING, IN_LITERT
from kzoo.bench.turns import Spread
from kzoo.files import atomic_path

LINE, ABOVE, BELOW = 0.26, 0.6, 0.5  # inches: a bar with its gap, and the room above and below the bars
NAME, BARS, SPACE = 2.6, 5.6, 0.3  # inches: the names in front of the bars, the bars with their labels, the margin
LABEL_SHARE = 0.45  # of the bars' width, for what stands behind the longest
SHADES = ("#67a9cf", "#2166ac", "#053061")  # of fewest threads, of more, of still more
KERAS = "#5aae61"
BACKGROUND = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}  # of the labels, over the ceilings


def draw(report: BenchReport, path: Path) -> None:
    """Draws a panel of files and one of Keras for each model: bars to the medians, quartiles, ratios, ceilings."""
    from matplotlib.figure import Figure

    models = [model for model in report.models if model.groups]
    heights = [ABOVE + BELOW + LINE * max(len(_bars_of(rows)) for rows in model.groups) for model in models]
    panels = max((len(model.groups) for model in models), default=1)
    width, height = panels * (NAME + BARS + SPACE), max(sum(heights), 1)
    figure = Figure(figsize=(width, height))
    top = height
    for model, each in zip(models, heights, strict=True):
        figure.text(SPACE / width, (top - 0.25) / height, model.title, fontsize=13, weight="bold", va="center")
        for index, rows in enumerate(model.groups):
            tall = LINE * len(_bars_of(rows))
            left, bottom = index * (NAME + BARS + SPACE) + NAME, top - ABOVE - tall
            axis = figure.add_axes((left / width, bottom / height, BARS / width, tall / height))
            _draw_panel(axis, model, rows)
        top -= each
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=110)


def _bars_of(rows: Sequence[Row]) -> list[Row]:
    """Those that run the model: matrix products are lines."""
    return [row for row in rows if not _is_product(row)] or list(rows)


def _is_product(row: Row) -> bool:
    return row.batch is None and row.size_bytes is None


def _draw_panel(axis, model: ModelBench, rows: Sequence[Row]) -> None:
    """One bar for each row, the first on top, with a whisker from quartile to quartile."""
    drawn = _bars_of(rows)
    bars = [(row, row.ms) for row in drawn if row.ms]
    threads = sorted({row.threads for row in rows if row.threads})
    shades = {number: SHADES[min(rank, len(SHADES) - 1)] for rank, number in enumerate(threads)}
    colors = [shades.get(row.threads or 0, KERAS) for row, _ in bars]
    axis.barh(range(len(bars)), [ms.median for _, ms in bars], height=0.72, color=colors)
    for position, (row, ms) in enumerate(bars):
        axis.plot([ms.lower, ms.upper], [position] * 2, color="black", linewidth=1)
        axis.text(ms.upper, position, f"  {_label(row, ms)}", fontsize=8, va="center", bbox=BACKGROUND)
    for row in rows:
        if _is_product(row) and row not in drawn and row.ms and row.macs and row.threads:
            time = row.ms.median * model.macs / row.macs
            style, what = (":", "LiteRT's product") if IN_LITERT in row.name else ("--", "float32 ceiling")
            label = f"{what}, {row.name.split(', ')[-1]}"
            axis.axvline(time, color=shades[row.threads], linestyle=style, linewidth=1, label=label, zorder=0)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=7, frameon=False, borderaxespad=0)
    axis.set_xlim(0, max(ms.upper for _, ms in bars) / (1 - LABEL_SHARE))
    axis.set_ylim(len(bars) - 0.4, -0.6)
    axis.set_yticks(range(len(bars)), [row.name for row, _ in bars], fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_xlabel("ms / image", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _label(row: Row, ms: Spread) -> str:
    """The time and the ratios; the bars show those to other numbers of threads and to other makers."""
    ratios = (
        title.replace("/", f"{value.median:.2f} ×")
        for title, value in row.ratios.items()
        if title in (CEILING, "speed / float32", "speed / plain", "speed / graph")
    )
    return ", ".join([f"{short(ms.median)} ms", *ratios])
