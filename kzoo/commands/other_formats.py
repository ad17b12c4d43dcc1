"""`kzoo export --onnx` and `--savedmodel`: what they cannot be given, and what is shown of their file."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from kzoo.commands.forms import Export
from kzoo.console import make_table, show, show_json
from kzoo.edge import FormatReport, export_onnx, export_saved_model
from kzoo.edge.arguments import check_path
from kzoo.edge.onnx_file import need_onnx
from kzoo.edge.saved_model import check_folder
from kzoo.errors import InvalidValueError
from kzoo.escape import terminal


def other_exporter(form: Export) -> Callable[..., FormatReport] | None:
    """What writes the format that the flags ask for; None for LiteRT files.

    Raises:
        InvalidValueError: both formats, an option of LiteRT files, or a wrong suffix.
        OutputError: a folder with something else in it.
        BackendError: a package is not installed.
    """
    if not (form.onnx or form.savedmodel):
        return None
    flag = "--onnx" if form.onnx else "--savedmodel"
    if form.onnx and form.savedmodel:
        raise InvalidValueError("--onnx and --savedmodel are two formats; give one of them")
    for option, given in (
        ("precision", form.precision != ("float32",)),
        ("io", form.io),
        ("target", form.target != "cpu"),
        ("threads", form.threads),
    ):
        if given:
            raise InvalidValueError(f"--{option} is of LiteRT files; {flag} writes float32 and measures no time")
    if form.savedmodel:
        check_folder(form.output)
        return export_saved_model
    check_path(form.output, ".onnx")
    need_onnx()
    return export_onnx


def show_format(form: Export, report: FormatReport, answers: str) -> None:
    """Prints what is told of the file, and writes its report where that is asked for; `answers` are of the model."""
    if form.report:
        report.save(Path(report.path).parent)
    show_json([dataclasses.asdict(report)]) if form.json else show(_table(report, answers))


def _table(report: FormatReport, answers: str) -> Table:
    columns = {
        "format": report.format,
        "size": f"{report.size_bytes / 1e6:.2f} MB",
        "batch": "any" if report.input_shape[0] is None else str(report.input_shape[0]),
        "relative\nerror": f"{report.relative_error:.1e}",
        f"same\n{answers}": "-" if report.agreement is None else f"{report.agreement:.1%}",
    }
    columns |= {metric.replace("_", "\n"): f"{told['file']:.4f}" for metric, told in report.scores.items()}
    table = make_table(*columns)
    table.add_row(*columns.values())
    keras_scores = (f"{metric.replace('_', ' ')} {told['keras']:.4f}" for metric, told in report.scores.items())
    lines = [
        report.path,
        f"{report.macs / 1e9:.3f} G multiply-adds",
        f"compared with Keras on {report.verified_on} by {report.runtime}",
        *([f"Keras: {', '.join(keras_scores)}"] if report.scores else []),
    ]
    table.caption = "\n".join(map(terminal, lines))
    table.caption_justify = "left"
    return table
