"""What the recipes of ImageNet need on slices of TPUs, by `kzoo plan`, beside what is published of such devices.

    pip install -e ".[plan]"
    python recipes/studies/planned.py

Each plan is one file in saved_models/plan, and takes minutes; what is there already is not made again, so that the
study goes on where it was stopped. `README.md` there and `plan.png` are made anew from what is there.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure
from rich.console import Console
from sheets import Sheet, in_markdown, on_console

from kzoo.files import atomic_path, write_text
from kzoo.planning.roofline import MATRIX, MEMORY, NETWORK

COLORS = {MATRIX: "#2166ac", MEMORY: "#67a9cf", NETWORK: "#5aae61"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One plan."""

    recipe: str
    topology: str
    settings: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """As a user would type it."""
        return " ".join(["kzoo plan", self.recipe, "--topology", self.topology, *self.settings])

    @property
    def file(self) -> str:
        """Name of its file."""
        words = (self.recipe, self.topology, *self.settings)
        return "_".join(word.strip("-").replace(":", "-") for word in words) + ".json"


RESNET, SWIN = "imagenet_resnet50", "imagenet_swin_tiny"
PODS, CARD = ("--batch-size", "4096"), ("--batch-size", "256")
CASES = [
    Case(RESNET, "v5e:2x4"),
    Case(SWIN, "v5e:2x4"),
    Case(RESNET, "v5e:4x8"),
    Case(SWIN, "v5e:4x8"),
    Case(RESNET, "v4:2x2x4"),
    Case(SWIN, "v4:2x2x4"),
    *(Case(f"imagenet_{name}", "v5e:2x4") for name in ("resnet50_cbam", "vgg16_bn", "inception_v3", "resnet50_a3")),
    Case(RESNET, "v3:8x8", PODS),
    Case(RESNET, "h100", CARD),
    Case(SWIN, "h100", CARD),
]


@dataclasses.dataclass(frozen=True)
class Published:
    """What somebody measured on the devices of a case."""

    case: Case
    what: str
    images_per_s: float
    source: str


GPU = "[measured](../training_speed_gpu/README.md) by `recipes/studies/training_speed_gpu.py`"
# 90 epochs of 1,281,167 images in about 32 minutes
PUBLISHED = [
    Published(
        Case(RESNET, "v3:8x8", PODS),
        "BiT-R50x1, group normalisation, with validation",
        90 * 1_281_167 / (32 * 60),
        "`big_vision/configs/bit_i1k.py`: 90 epochs in about 32 minutes on a v3-128",
    ),
    Published(
        Case(RESNET, "h100", CARD),
        "the same network under JAX, images on the device",
        5478,
        GPU,
    ),
    Published(
        Case(SWIN, "h100", CARD),
        "the same network under JAX, images on the device",
        3518,
        GPU,
    ),
]


@dataclasses.dataclass(frozen=True)
class Options:
    """Which plans are made."""

    only: tuple[str, ...] = ()
    """Recipes to plan; default: all."""
    output_dir: Path = Path("saved_models/plan")
    """Where the plans go."""
    page_only: bool = False
    """Whether to make the page from the plans that are there, and no plan."""


def make(case: Case, path: Path) -> None:
    """Makes a plan, in a process of its own."""
    command = [sys.executable, "-m", *case.command.split(), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        raise SystemExit(f"{case.command} failed")
    (plan,) = json.loads(done.stdout)
    write_text(path, json.dumps({"command": case.command} | plan, indent=1) + "\n")


def memory_sheet(plans: dict[Case, dict[str, Any]]) -> Sheet:
    """The memory of each chip."""
    rows = []
    for plan in plans.values():
        program, memory = plan["program"], plan["limits"]["memory"]
        devices = program["devices"]
        used = memory - plan["headroom_bytes"]
        weights, optimizer = program["parameter_bytes"], program["optimizer_bytes"]
        sizes = (weights, optimizer, used - weights - optimizer, plan["headroom_bytes"])
        cells = (f"{size / 1e9:.2f}" for size in sizes)
        batch = f"{program['batch_size']:,} ({program['batch_size'] // devices})"
        rows.append((plan["recipe"], plan["topology"], f"{devices}", batch, *cells, f"{plan['largest_batch']:,}"))
    columns = ("recipe", "topology", "devices", "batch (each)", "weights", "optimizer", "activations and the rest")
    return "Memory of each device, GB", (*columns, "headroom", "largest batch"), rows


def time_sheet(plans: dict[Case, dict[str, Any]]) -> Sheet:
    """The time, and what binds it."""
    rows = []
    for plan in plans.values():
        if not plan["fits"]:
            continue
        parts = (f"{1e3 * plan['seconds'][part]:.2f}" for part in COLORS)
        rate = f"{plan['images_per_s']:,.0f}"
        name = (plan["recipe"], plan["topology"], f"{plan['program']['batch_size']:,}")
        rows.append((*name, *parts, plan["bound"], rate, f"{plan['epoch_s']:.0f}", f"{plan['hours']:.1f}"))
    columns = ("recipe", "topology", "batch", *COLORS, "bound by", "images/s", "epoch, s", "run, h")
    return "Time at least, ms of a step", columns, rows


def published_sheet(plans: dict[Case, dict[str, Any]]) -> Sheet:
    """What is published beside what is planned."""
    rows = []
    for each in PUBLISHED:
        if plan := plans.get(each.case):
            planned = plan["images_per_s"]
            share = f"{each.images_per_s / planned:.2f}"
            rows.append(
                (each.case.command, f"{planned:,.0f}", f"{each.images_per_s:,.0f}", share, each.what, each.source)
            )
    return "Beside measurements, images/s", ("plan", "planned", "measured", "ratio", "of", "source"), rows


def draw(plans: dict[Case, dict[str, Any]]) -> Figure:
    """Bars: the memory of each device, and the parts of a step's time."""
    names = [f"{plan['recipe']}, {plan['topology']}, {plan['program']['batch_size']:,}" for plan in plans.values()]
    figure = Figure(figsize=(12, 1.2 + 0.42 * len(names)), layout="constrained")
    memory, time = figure.subplots(1, 2, sharey=True)
    for row, plan in enumerate(plans.values()):
        total, left = plan["limits"]["memory"], 0.0
        used = total - plan["headroom_bytes"]
        state = plan["program"]["parameter_bytes"] + plan["program"]["optimizer_bytes"]
        for size, color, label in ((state, "#053061", "weights and optimizer"), (used - state, "#67a9cf", "the rest")):
            memory.barh(row, size / total, left=left, color=color, label=label if row == 0 else None)
            left += size / total
        for place, part in enumerate(COLORS):
            if plan["fits"]:
                seconds = 1e3 * plan["seconds"][part]
                label = part if row == 0 else None
                time.barh(row + 0.27 * (place - 1), seconds, height=0.25, color=COLORS[part], label=label)
    memory.set_yticks(range(len(names)), names, fontsize=8)
    memory.invert_yaxis()
    memory.set_xlabel("share of a device's memory")
    memory.axvline(1, color="black", linewidth=1)
    time.set_xscale("log")
    time.set_xlabel("ms of a step, at least; the longest part binds")
    memory.legend(fontsize=8)
    time.legend(fontsize=8)
    return figure


PAGE = """# What the recipes of ImageNet need

Planned, none of it run on these devices, by

    python recipes/studies/planned.py

which calls `kzoo plan` for each line: the training step is compiled by XLA for the slice, and its time is the longest
of what it computes, moves and sends against the [peaks](../../kzoo/peaks.py) of the chips. A step takes at least as
long; how far it is from that shows where somebody measured. TPU programs are compiled with the least effort; on-chip
memory is not used then, so that all traffic is counted once. That of a card, which is not here, is an estimate by the
program for a processor. {versions}.

![memory and time](plan.png)

"""


def write_page(plans: dict[Case, dict[str, Any]], folder: Path) -> None:
    """The tables and the picture."""
    versions = {f"{name} {version}" for plan in plans.values() for name, version in plan["versions"].items()}
    shown = sorted(text for text in versions if text.split()[0] in ("jax", "keras", "libtpu"))
    sheets = [memory_sheet(plans), time_sheet(plans), published_sheet(plans)]
    for each in sheets:
        Console().print(on_console(each))
    processor = folder / "processor.md"
    parts = [PAGE.format(versions=", ".join(shown)), *map(in_markdown, sheets)]
    if processor.exists():
        parts.append(processor.read_text(encoding="utf-8"))
    write_text(folder / "README.md", "\n".join(parts))
    with atomic_path(folder / "plan.png") as partial:
        draw(plans).savefig(partial, dpi=100)


def main(options: Options) -> None:
    """Makes the plans that are not there, and the page."""
    options.output_dir.mkdir(parents=True, exist_ok=True)
    plans = {}
    for case in CASES:
        path = options.output_dir / case.file
        if not path.exists() and not options.page_only and (not options.only or case.recipe in options.only):
            print(case.command, flush=True)
            make(case, path)
        if path.exists():
            plans[case] = json.loads(path.read_text(encoding="utf-8"))
    if plans:
        write_page(plans, options.output_dir)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
