"""What a map costs: seconds for one picture, and how far the process grows beyond the network's own forward pass.

    python recipes/studies/maps_cost.py [--model resnet18] [--sizes 224 512]

Each method runs in a process of its own, once, for one random picture, after a forward pass. Writes README.md and
cost.json to saved_models/maps_cost.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from judged import table

import kzoo
from kzoo import explain
from kzoo.console import parse, user_errors
from kzoo.files import ensure_writable, write_text

METHODS = {
    "Grad-CAM": ("grad_cam", {}),
    "HiResCAM": ("hires_cam", {}),
    "LayerCAM": ("layer_cam", {}),
    "Grad-CAM++": ("grad_cam_plus_plus", {}),
    "Eigen-CAM": ("eigen_cam", {}),
    "integrated gradients, 25 steps": ("integrated_gradients", dict(steps=25)),
    "SmoothGrad, 25 samples": ("smooth_grad", dict(samples=25)),
    "occlusion, 225 squares": ("occlusion", {}),
    "RISE, 100 masks": ("rise", dict(masks=100)),
}
FORMAT = (("seconds", 1), ("mb", 0), ("load", 1))  # digits of each number
HEAD = """# What a map costs

    python recipes/studies/maps_cost.py --model {model} --sizes {sizes}

One picture, TensorFlow on {cores} cores; each method in a process of its own, which had made one forward pass before.
MB is how far the peak of its memory grew from there. Load is the mean number of busy processes on the machine in the
minute before: beyond {cores} the others took time from this, and seconds tell the order of methods, not more.
"""


@dataclass(frozen=True)
class Options:
    """What is measured, and where the numbers go."""

    model: str = "resnet18"
    """Network with random weights."""
    sizes: tuple[int, ...] = (224, 512)
    """Sides of the picture."""
    output_dir: Path = Path("saved_models/maps_cost")
    """Directory of README.md and cost.json."""
    one: str | None = None
    """Method that alone is measured, with the first size; its numbers are printed."""


def peak_mb() -> float:
    """The largest memory that this process has had, of Linux, which counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(model: str, size: int, method: str) -> dict[str, float]:
    """Seconds and MB of a method, in this process."""
    network = kzoo.build(model, input_shape=(size, size, 3))
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3)).astype("float32")
    network(image)
    name, options = METHODS[method]
    before, start = peak_mb(), time.perf_counter()
    getattr(explain, name)(network, image, **options)
    return {"seconds": time.perf_counter() - start, "mb": peak_mb() - before, "load": os.getloadavg()[0]}


def main(options: Options) -> None:
    """Measures each method in a process of its own, and writes the page."""
    if options.one:
        print(json.dumps(measured(options.model, options.sizes[0], options.one)))
        return
    ensure_writable(options.output_dir, need_bytes=100_000)
    found: dict[str, dict[str, dict]] = {}
    for size in options.sizes:
        for method in METHODS:
            how = ["--model", options.model, "--sizes", str(size), "--one", method]
            run = subprocess.run([sys.executable, __file__, *how], check=True, capture_output=True, text=True)
            found.setdefault(method, {})[str(size)] = json.loads(run.stdout.splitlines()[-1])
            print(size, method, found[method][str(size)], flush=True)
    columns = ["map", *(f"{size} px: {what}" for size in options.sizes for what in ("s", "MB", "load"))]
    rows = [
        [method, *(f"{each[key]:.{digits}f}" for each in sizes.values() for key, digits in FORMAT)]
        for method, sizes in found.items()
    ]
    facts = {"model": options.model, "machine": platform.machine(), "cores": os.cpu_count(), "cost": found}
    write_text(options.output_dir / "cost.json", json.dumps(facts, indent=2) + "\n")
    head = HEAD.format(model=options.model, sizes=" ".join(map(str, options.sizes)), cores=os.cpu_count())
    write_text(options.output_dir / "README.md", "\n".join([head, table(columns, rows)]))


if __name__ == "__main__":
    with user_errors():
        main(parse(Options, sys.argv[1:], sys.argv[0], description=__doc__))
