"""The chart of a report: bars of the times, with their ratios."""

from collections.abc import Sequence
from pathlib import Path

from kzoo.bench.subjects import CEILING, IN_LITERT
from kzoo.bench.timings import BenchReport, ModelBench, Timing, short
from kzoo.bench.turns import Spread
from kzoo.files import atomic_path

LINE, ABOVE, BELOW = 0.26, 0.6, 0.5  # inches: a bar with its gap, and the room above and below the bars
NAME, BARS, SPACE = 2.6, 5.6, 0.3  # inches: the names in front of the bars, the bars with their notes, the margin
NOTE_SHARE = 0.45  # of the bars' width, for what stands behind the longest
SHADES = ("#67a9cf", "#2166ac", "#053061")  # of fewest threads, of more, of still more
KERAS = "#5aae61"
BACKGROUND = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}  # of the notes, over the ceilings


def draw_chart(report: BenchReport, path: Path) -> None:
    """Draws a panel of files and one of Keras for each model: bars to the medians, quartiles, ratios, ceilings."""
    from matplotlib.figure import Figure

    models = [model for model in report.models if model.groups]
    heights = [ABOVE + BELOW + LINE * max(len(_bars_of(timings)) for timings in model.groups) for model in models]
    panels = max((len(model.groups) for model in models), default=1)
    width, height = panels * (NAME + BARS + SPACE), max(sum(heights), 1)
    figure = Figure(figsize=(width, height))
    top = height
    for model, each in zip(models, heights, strict=True):
        figure.text(SPACE / width, (top - 0.25) / height, model.title, fontsize=13, weight="bold", va="center")
        for index, timings in enumerate(model.groups):
            tall = LINE * len(_bars_of(timings))
            left, bottom = index * (NAME + BARS + SPACE) + NAME, top - ABOVE - tall
            axis = figure.add_axes((left / width, bottom / height, BARS / width, tall / height))
            _draw_panel(axis, model, timings)
        top -= each
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=110)


def _bars_of(timings: Sequence[Timing]) -> list[Timing]:
    """The timings that run the model: matrix products are lines."""
    return [timing for timing in timings if not _is_product(timing)] or list(timings)


def _is_product(timing: Timing) -> bool:
    return timing.batch is None and timing.size_bytes is None


def _draw_panel(axis, model: ModelBench, timings: Sequence[Timing]) -> None:
    """One bar for each timing, the first on top, with a whisker from quartile to quartile."""
    drawn = _bars_of(timings)
    bars = [(timing, timing.ms) for timing in drawn if timing.ms]
    threads = sorted({timing.threads for timing in timings if timing.threads})
    shades = {number: SHADES[min(rank, len(SHADES) - 1)] for rank, number in enumerate(threads)}
    colors = [shades.get(timing.threads or 0, KERAS) for timing, _ in bars]
    axis.barh(range(len(bars)), [ms.median for _, ms in bars], height=0.72, color=colors)
    for position, (timing, ms) in enumerate(bars):
        axis.plot([ms.lower, ms.upper], [position] * 2, color="black", linewidth=1)
        axis.text(ms.upper, position, f"  {_note(timing, ms)}", fontsize=8, va="center", bbox=BACKGROUND)
    for timing in timings:
        if _is_product(timing) and timing not in drawn and timing.ms and timing.macs and timing.threads:
            time = timing.ms.median * model.macs / timing.macs
            style, what = (":", "LiteRT's product") if IN_LITERT in timing.name else ("--", "float32 ceiling")
            label = f"{what}, {timing.name.split(', ')[-1]}"
            axis.axvline(time, color=shades[timing.threads], linestyle=style, linewidth=1, label=label, zorder=0)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=7, frameon=False, borderaxespad=0)
    axis.set_xlim(0, max(ms.upper for _, ms in bars) / (1 - NOTE_SHARE))
    axis.set_ylim(len(bars) - 0.4, -0.6)
    axis.set_yticks(range(len(bars)), [timing.name for timing, _ in bars], fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_xlabel("ms / image", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _note(timing: Timing, ms: Spread) -> str:
    """The time and the ratios; the bars show those to other numbers of threads and to other makers."""
    ratios = (
        title.replace("/", f"{value.median:.2f} ×")
        for title, value in timing.ratios.items()
        if title in (CEILING, "speed / float32", "speed / plain", "speed / graph")
    )
    return ", ".join([f"{short(ms.median)} ms", *ratios])
