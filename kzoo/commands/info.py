"""`kzoo info`: the size, cost, feature maps, weights, papers and options of a model, and a picture of it."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from kzoo.commands.forms import Info
from kzoo.console import make_table, show, show_json
from kzoo.escape import terminal
from kzoo.report.architecture import check_picture, draw_architecture
from kzoo.weights import WEIGHTS, known
from kzoo.zoo import build, describe


def run(form: Info) -> None:
    given: dict[str, Any] = {"attention": form.attention, "backbone": form.backbone}
    options = {name: value for name, value in given.items() if value is not None}
    if form.picture is not None:
        check_picture(form.picture)
    info = describe(form.name, **options)
    if form.picture is not None:
        draw_architecture(build(form.name, **options), form.picture)
    names = info.weights[1:]
    if form.json:
        specs = {name: dataclasses.asdict(WEIGHTS[info.name][name]) for name in names}
        show_json(dataclasses.asdict(info) | {"weights": specs})
        return
    table = make_table(info.name, "", header=False)
    table.add_row("family", info.family)
    table.add_row("input", "×".join(map(str, info.input_shape)))
    table.add_row("classes", str(info.num_classes))
    table.add_row("task", info.output.task)
    table.add_row("output", info.output.values)
    table.add_row("trainable parameters", f"{info.trainable_parameters:,}")
    table.add_row("multiply-adds", f"{info.macs / 1e9:.3f} G")
    for tap, shape in info.taps.items():
        table.add_row(f"tap {tap}", "×".join(map(str, shape)))
    table.add_row("papers", ", ".join(map(_link, info.papers)) or "-")
    for option, value in info.options.items():
        table.add_row(f"option {option}", terminal(repr(value)))
    if names:
        show(table, _weights_table("weights=", info.name, info.weights))
    elif info.starts_from:
        heading = f"weights=, of {info.starts_from}: the attention is new"
        show(table, _weights_table(heading, info.starts_from, known(info.starts_from)))
    else:
        backbone = info.options.get("backbone")
        more = f"; kzoo info {backbone} lists those of its backbone" if backbone else ""
        show(table, f"no public weights{more}")


def _weights_table(heading: str, model: str, names: Sequence[str]):
    """The checkpoints of a model, of which `names` are the word for the first one, and their own."""
    default, *names = names
    weights = make_table(heading, "licence", "images", "classes", "ImageNet-1K top-1", "source")
    for name in names:
        spec = WEIGHTS[model][name]
        top1 = "-" if spec.top1 is None else f"{spec.top1:.2f} %"
        word = f" ({default})" if name == names[0] else ""
        images = f"{spec.size}×{spec.size}"
        weights.add_row(f"{name}{word}", spec.licence, images, str(spec.num_classes), top1, spec.source)
    return weights


def _link(paper: str) -> str:
    """The address of an arXiv number; authors and a year stay as they are."""
    return f"https://arxiv.org/abs/{paper}" if re.fullmatch(r"\d{4}\.\d{4,5}", paper) else paper
