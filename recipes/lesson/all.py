"""The whole lesson: runs every step, tells how long it took, and leaves the figures in a folder.

    python recipes/lesson/all.py --output-dir figures

takes eleven minutes on two CPU cores that much other work shares; `--steps 1 2` runs these alone. A step whose figure
does not show what its text says ends with an AssertionError.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import runpy
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import lesson

from kzoo.console import parse, user_errors
from kzoo.errors import InvalidValueError
from kzoo.files import ensure_writable

STEPS = {int(path.name[:2]): path for path in sorted(Path(__file__).parent.glob("[0-9][0-9]_*.py"))}


@dataclass(frozen=True)
class Options:
    """Which steps are run, and where the figures go."""

    output_dir: Path = Path("lesson")
    """Directory of the figures."""
    steps: tuple[int, ...] = tuple(STEPS)
    """Numbers of the steps."""


def title(path: Path) -> str:
    """The heading of a step, such as "10. CBAM, in numbers"."""
    return next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# # "))[4:]


def main(options: Options) -> dict[int, float]:
    """Runs the steps; returns the seconds of each.

    Raises:
        InvalidValueError: there is no such step.
        AssertionError: a figure does not show what its text says.
        OutputError: the figures cannot be written.
    """
    if not options.steps:
        raise InvalidValueError(f"--steps names no step; they go from 1 to {max(STEPS)}")
    unknown = sorted(set(options.steps) - set(STEPS))
    if unknown:
        raise InvalidValueError(f"there is no step {unknown[0]}; they go from 1 to {max(STEPS)}")
    ensure_writable(options.output_dir, need_bytes=1_000_000)
    os.environ[lesson.FIGURES] = str(options.output_dir)
    seconds = {}
    for number in options.steps:
        start = time.perf_counter()
        print(title(STEPS[number]), flush=True)
        runpy.run_path(str(STEPS[number]))
        keras.utils.clear_session()
        seconds[number] = time.perf_counter() - start
        print(f"    as it says; {seconds[number]:.0f} s", flush=True)
    print(f"{len(seconds)} steps in {sum(seconds.values()):.0f} s; the figures are in {options.output_dir}")
    return seconds


if __name__ == "__main__":
    with user_errors():
        main(parse(Options, sys.argv[1:], sys.argv[0], description=__doc__))
