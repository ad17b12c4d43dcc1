"""The commands that tell about models: `kzoo list` and `kzoo info`."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated

import rich
from rich.table import Table
from tyro.conf import Positional, arg

from kzoo.errors import UnknownNameError, did_you_mean
from kzoo.escape import terminal
from kzoo.registry import list_models, lookup
from kzoo.weights import WEIGHTS, known
from kzoo.zoo import describe


@dataclasses.dataclass(frozen=True)
class List:
    """List the models of the zoo."""

    pattern: Annotated[Positional[str], arg(metavar="[PATTERN]")] = "*"
    """Shell-style, such as "resnet50*" (quote it)."""

    def run(self) -> None:
        names = list_models(self.pattern)
        if not names:
            raise UnknownNameError(
                f"no model matches {self.pattern!r}{did_you_mean(self.pattern, list_models())}; kzoo list shows all"
            )
        table = make_table("model", "family", "input", "classes", "public weights", "arXiv")
        for name in names:
            entry = lookup(name)
            table.add_row(
                name,
                entry.family,
                "×".join(map(str, entry.input_shape)),
                str(entry.num_classes),
                _brief(known(name)[1:]),
                ", ".join(entry.papers),
            )
        rich.print(table)
        rich.print(f"{len(names)} models")


@dataclasses.dataclass(frozen=True)
class Info:
    """Show the size, cost, feature maps, weights, papers and options of a model."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Of the model."""
    attention: str | None = None
    """Attention to put in, such as "se"."""
    backbone: str | None = None
    """Network under a U-Net or a feature pyramid, such as "resnet34_cbam"."""

    def run(self) -> None:
        options = {"attention": self.attention, "backbone": self.backbone}
        info = describe(self.name, **{name: value for name, value in options.items() if value is not None})
        table = make_table(info.name, "", header=False)
        table.add_row("family", info.family)
        table.add_row("input", "×".join(map(str, info.input_shape)))
        table.add_row("classes", str(info.num_classes))
        table.add_row("trainable parameters", f"{info.trainable_parameters:,}")
        table.add_row("multiply-adds", f"{info.macs / 1e9:.3f} G")
        for tap, shape in info.taps.items():
            table.add_row(f"tap {tap}", "×".join(map(str, shape)))
        table.add_row("papers", ", ".join(map(_link, info.papers)) or "-")
        for option, value in info.options.items():
            table.add_row(f"option {option}", terminal(repr(value)))
        rich.print(table)
        if not info.weights:
            backbone = info.options.get("backbone")
            rich.print(f"no public weights{f'; kzoo info {backbone} lists those of its backbone' if backbone else ''}")
            return
        table = make_table("weights=", "licence", "images", "classes", "ImageNet-1K top-1", "source")
        for name in info.weights[1:]:
            spec = WEIGHTS[info.name][name]
            top1 = "-" if spec.top1 is None else f"{spec.top1:.2f} %"
            default = f" ({info.weights[0]})" if name == info.weights[1] else ""
            images = f"{spec.size}×{spec.size}"
            table.add_row(f"{name}{default}", spec.licence, images, str(spec.num_classes), top1, spec.source)
        rich.print(table)


def _brief(weights: Sequence[str]) -> str:
    """The default checkpoint and how many more there are."""
    if not weights:
        return "-"
    return weights[0] + (f" and {len(weights) - 1} more" if len(weights) > 1 else "")


def _link(paper: str) -> str:
    """The address of an arXiv number; authors and a year stay as they are."""
    return f"https://arxiv.org/abs/{paper}" if re.fullmatch(r"\d{4}\.\d{4,5}", paper) else paper


def make_table(*columns: str, header: bool = True) -> Table:
    """A table with these columns, or without a header and titled by the first one."""
    table = Table(show_header=header, title=None if header else columns[0])
    for column in columns:
        table.add_column(column if header else "", overflow="fold")
    return table
