"""What a file for another runtime costs and how exactly it computes: `FormatReport`, as JSON and Markdown."""

import dataclasses
import json
from pathlib import Path

from kzoo.escape import markdown
from kzoo.files import write_text


@dataclasses.dataclass(frozen=True)
class FormatReport:
    """An ONNX file or a SavedModel that was written and checked.

    Attributes:
        path: path of the file or folder.
        format: `"ONNX"` or `"SavedModel"`.
        runtime: what ran it, with its version.
        size_bytes: size of the file, or of all files of the folder.
        input_shape: (batch, height, width, channels) of the first input; None for a batch of any size.
        ops: op -> how often it stands in an ONNX file; empty for a SavedModel.
        macs: multiply-adds of one image.
        verified_on: images that were compared, and how many.
        max_abs_error: largest absolute difference to Keras' outputs.
        max_rel_error: the same over the largest absolute output.
        relative_error: norm of the difference over the norm of Keras' outputs.
        cosine: cosine between the file's outputs and Keras'.
        outputs: of several, name -> these four numbers; above stand those of the output that is worst.
        agreement: share of the answers that are the same, as in `ExportReport`.
        scores: metric -> "keras" and "file" -> its value on the evaluation images; empty without any.
    """

    path: str
    format: str
    runtime: str
    size_bytes: int
    input_shape: tuple[int | None, ...]
    ops: dict[str, int]
    macs: int
    verified_on: str
    max_abs_error: float
    max_rel_error: float
    relative_error: float
    cosine: float
    agreement: float | None
    outputs: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    scores: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """Every attribute, as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def to_markdown(self) -> str:
        """A page for people."""
        rows = {
            "format": self.format,
            "checked with": self.runtime,
            "size": f"{self.size_bytes / 1e6:.2f} MB",
            "input": " × ".join("any" if size is None else str(size) for size in self.input_shape),
            "multiply-adds": f"{self.macs / 1e9:.3f} G for one image",
            f"error on {self.verified_on}": f"{self.relative_error:.2e} of the norm, at most {self.max_abs_error:.2e}",
            "cosine": f"{self.cosine:.6f}",
            "same answers": "unknown" if self.agreement is None else f"{self.agreement:.2%}",
        }
        rows |= {
            f"error of `{markdown(name)}`": f"{errors['relative_error']:.2e} of the norm"
            for name, errors in self.outputs.items()
        }
        if self.ops:
            rows["ops"] = ", ".join(f"{count} {op}" for op, count in self.ops.items())
        rows |= {
            f"{metric}, Keras → file": f"{values['keras']:.4f} → {values['file']:.4f}"
            for metric, values in self.scores.items()
        }
        lines = [f"# {markdown(Path(self.path).name)}", "", "| what | measured |", "| --- | --- |"]
        return "\n".join(lines + [f"| {what} | {value} |" for what, value in rows.items()]) + "\n"

    def save(self, directory: str | Path) -> None:
        """Writes NAME_report.json and NAME_report.md, for a file NAME.onnx or a folder NAME."""
        stem = Path(directory) / f"{Path(self.path).stem}_report"
        write_text(stem.with_suffix(".json"), self.to_json())
        write_text(stem.with_suffix(".md"), self.to_markdown())
