"""What an exported file costs and what it lost: `ExportReport`, as JSON, Markdown and a chart."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from kzoo.edge.gpu import gpu_in_words
from kzoo.escape import markdown
from kzoo.files import atomic_path, write_text

WORST_LAYERS = 10


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """A file that `export` wrote and checked.

    Attributes:
        path: path of the file.
        precision: name in `PRECISIONS`.
        size_bytes: size of the file.
        input_shape: static (batch, height, width, channels), of the first input.
        io: type of the numbers that the file gives.
        ops: built-in op -> how often it stands in the file.
        xnnpack_partitions: number of pieces in which the delegate runs the file; 1 is best.
        ops_outside_xnnpack: built-in op -> how often it runs outside the delegate.
        policy: name in `STATIC_POLICIES` of the choice of ops that compute in integers; "" for float activations.
        macs: multiply-adds of one image.
        verified_on: images that were compared: calibration images or noise, and how many.
        max_abs_error: largest absolute difference to Keras' outputs.
        max_rel_error: the same over the largest absolute output.
        relative_error: norm of the difference over the norm of Keras' outputs.
        cosine: cosine between the file's outputs and Keras'.
        outputs: of a file with several, name -> these four numbers; above stand those of the output that is worst.
        agreement: share of images (of pixels, in segmentation) with the same most probable class, or of the labels of
            a multi-label classifier that are the same; of a detector, of all that both find, the share that has a
            partner of its class which it overlaps by half at least. None where nothing is found, and where a single
            number tells nobody its threshold.
        scores: metric -> "keras" and "file" -> its value on the evaluation images; empty without any.
        layers: (tensor, relative error) where most is lost, worst first; empty unless asked for.
        latency_ms: threads -> median time of one invocation; empty unless asked for.
        gpu_refuses: what a mobile GPU delegate would leave to the CPU -> how often, see `kzoo.edge.gpu`; empty where
            the file runs whole on a GPU.
    """

    path: str
    precision: str
    size_bytes: int
    input_shape: tuple[int, ...]
    io: str
    ops: dict[str, int]
    xnnpack_partitions: int
    ops_outside_xnnpack: dict[str, int]
    policy: str
    macs: int
    verified_on: str
    max_abs_error: float
    max_rel_error: float
    relative_error: float
    cosine: float
    agreement: float | None
    outputs: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    scores: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    layers: tuple[tuple[str, float], ...] = ()
    latency_ms: dict[int, float] = dataclasses.field(default_factory=dict)
    gpu_refuses: dict[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """Every attribute, as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def to_markdown(self) -> str:
        """A page for people."""
        outside = ", ".join(f"{count} {op}" for op, count in self.ops_outside_xnnpack.items()) or "none"
        rows = {
            "precision": f"{self.precision}{f', policy {self.policy!r}' if self.policy else ''}",
            "size": f"{self.size_bytes / 1e6:.2f} MB",
            "input": " × ".join(map(str, self.input_shape)),
            "type of input and output": self.io,
            "multiply-adds": f"{self.macs / 1e9:.3f} G for one image",
            "XNNPACK partitions": self.xnnpack_partitions,
            "ops outside XNNPACK": outside,
            "GPU": gpu_in_words(self.gpu_refuses),
            "ops": ", ".join(f"{count} {op}" for op, count in self.ops.items()),
            f"error on {self.verified_on}": f"{self.relative_error:.2e} of the norm, at most {self.max_abs_error:.2e}",
            "cosine": f"{self.cosine:.6f}",
            "same answers": "unknown" if self.agreement is None else f"{self.agreement:.2%}",
        }
        rows |= {
            f"error of {name!r}": f"{told['relative_error']:.2e} of the norm, at most {told['max_abs_error']:.2e}"
            for name, told in self.outputs.items()
        }
        rows |= {
            f"{metric}, Keras → file": f"{values['keras']:.4f} → {values['file']:.4f}"
            for metric, values in self.scores.items()
        }
        rows |= {f"latency, {threads_of(count)}": f"{time:.2f} ms" for count, time in self.latency_ms.items()}
        lines = [f"# {markdown(Path(self.path).name)}", "", "| what | measured |", "| --- | --- |"]
        lines += [f"| {what} | {value} |" for what, value in rows.items()]
        if self.layers:
            lines += ["", "Where most is lost:", "", "| tensor | relative error |", "| --- | --- |"]
            lines += [f"| {markdown(name, code=True)} | {error:.2e} |" for name, error in self.layers]
        return "\n".join(lines) + "\n"

    def save(self, directory: str | Path) -> None:
        """Writes NAME_report.json and NAME_report.md, for a file NAME.tflite."""
        stem = Path(directory) / f"{Path(self.path).stem}_report"
        write_text(stem.with_suffix(".json"), self.to_json())
        write_text(stem.with_suffix(".md"), self.to_markdown())


def threads_of(count: int) -> str:
    """'1 thread', '2 threads'."""
    return f"{count} thread{'s' if count > 1 else ''}"


def draw_reports(reports: Mapping[str, ExportReport], path: str | Path) -> None:
    """Draws size, error, agreement and, where they were measured, scores and latency of files of one model.

    Args:
        reports: precision -> report.
        path: path of the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(reports)
    panels = {
        "size, MB": [report.size_bytes / 1e6 for report in reports.values()],
        "relative error": [report.relative_error for report in reports.values()],
    }
    agreements = [report.agreement for report in reports.values() if report.agreement is not None]
    if len(agreements) == len(reports):
        panels["other class, %"] = [100 * (1 - agreement) for agreement in agreements]
    for metric in sorted(set.intersection(*(set(report.scores) for report in reports.values()))):
        lost = [100 * (report.scores[metric]["keras"] - report.scores[metric]["file"]) for report in reports.values()]
        panels[f"{metric.replace('_', ' ')} lost, points"] = lost
    threads = sorted(set.intersection(*(set(report.latency_ms) for report in reports.values())))
    panels |= {f"latency, ms, {threads_of(n)}": [report.latency_ms[n] for report in reports.values()] for n in threads}
    figure = Figure(figsize=(3.2 * len(panels), 0.9 + 0.38 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (title, values) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        bars = axis.barh(names, values, color="tab:blue")
        axis.bar_label(bars, fmt="%.2f" if title.endswith("points") else "%.3g", padding=3)
        axis.set_title(title)
        room = 0.35 * (max(map(abs, values)) or 1)  # for the numbers behind the bars
        axis.set_xlim(min(values) - room if min(values) < 0 else 0, max(0, *values) + room)
        axis.spines[["top", "right"]].set_visible(False)
    axis.invert_yaxis()
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=100)
