"""What was measured of a model: its timings with their ratios, as tables, JSON and Markdown."""

import dataclasses
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import keras

import kzoo
from kzoo.bench.plan import Plan
from kzoo.bench.subjects import CEILING, Subject
from kzoo.bench.turns import Spread, Times, spread
from kzoo.errors import OutputError
from kzoo.files import ensure_writable, refuse_unwritable, write_text

PACKAGES = ("numpy", "tensorflow", "keras", "ai-edge-litert", "litert-quantizer")
JSON, CHART, PAGE = "bench.json", "bench.png", "README.md"
EMPTY = "–"
BUSY = 0.5  # load for each core, above which others take too much of the machine
NOTES = (
    "Each is timed once in a round, all by turns. Ratios are taken within a round; medians, quartiles in brackets.",
    f"`{CEILING}`: the time over that of a float32 matrix product in NumPy, with as many threads, for as many "
    "multiply-adds; 1 is the best that float32 can do. LiteRT's own product shows what its kernels reach.",
    "`speed / x`: the time of x over the time; above 1 is faster than x.",
    "Files have the normalisation of pixels in their first convolution (`kzoo export --fold-preprocessing`); those of "
    "keras.applications have none.",
    "Files run one image, without the time to fill their input. TensorFlow takes all cores.",
    "Weights are random, and so are the pixels that integer files are calibrated on: times depend on neither.",
)


@dataclass(frozen=True)
class Timing:
    """One subject, measured.

    Attributes:
        name: name of the subject.
        threads: number of threads; None where the library takes all cores.
        batch: number of images of one run; None for files and products, which take one.
        macs: multiply-adds of one image, where they are known.
        size_bytes: size of its file.
        partitions: number of pieces in which the XNNPACK delegate runs its file.
        problem: reason why there is no time.
        ms: milliseconds for an image.
        fastest_ms: the least of them, which a busy machine disturbs least.
        ratios: title -> the ratios of all rounds. "time / ceiling" is the time over the time that a matrix product
            takes for as many multiply-adds; "speed / x" is the time of x over the time.
    """

    name: str
    threads: int | None
    batch: int | None
    macs: int | None
    size_bytes: int | None
    partitions: int | None
    problem: str = ""
    ms: Spread | None = None
    fastest_ms: float | None = None
    ratios: Mapping[str, Spread] = field(default_factory=dict)


@dataclass
class ModelBench:
    """What was measured of one model.

    Attributes:
        name: name of the model.
        image_shape: (height, width, channels).
        macs: multiply-adds of an image.
        rounds: number of rounds so far.
        rows: timings of its subjects, which are the rows of its tables.
        problem: reason why nothing of it could be timed.
    """

    name: str
    image_shape: tuple[int, int, int]
    macs: int = 0
    rounds: int = 0
    rows: list[Timing] = field(default_factory=list)
    problem: str = ""

    def timing(self, name: str) -> Timing:
        """The timing of a subject."""
        return next(timing for timing in self.rows if timing.name == name)

    @property
    def title(self) -> str:
        size = "×".join(map(str, self.image_shape))
        return f"{self.name}, {size}, {self.macs / 1e9:.3g} GMACs, {self.rounds} rounds"

    @property
    def groups(self) -> list[list[Timing]]:
        """What was timed: the files with the matrix products, and Keras, if there are any."""
        timed = [timing for timing in self.rows if timing.ms]
        groups = [[timing for timing in timed if (timing.batch is None) == files] for files in (True, False)]
        return [timings for timings in groups if timings]

    @property
    def problems(self) -> list[str]:
        """Each failure with its reason."""
        own = [f"{self.name}: {self.problem}"] if self.problem else []
        return own + [f"{self.name}, {timing.name}: {timing.problem}" for timing in self.rows if timing.problem]


def make_timings(subjects: Sequence[Subject], times: Times) -> list[Timing]:
    """The timings of all subjects; those that have no times yet are without numbers."""
    macs = {subject.name: subject.macs for subject in subjects}
    timings = []
    for subject in subjects:
        taken = times.seconds.get(subject.name)
        ratios = {}
        for title, other in subject.over.items():
            if not taken or other not in times.seconds:
                continue
            if title != CEILING:
                ratios[title] = spread(times.ratio(other, subject.name))
            elif subject.macs and (product := macs[other]):
                share = product / subject.macs
                ratios[title] = spread([ratio * share for ratio in times.ratio(subject.name, other)])
        ms = [1e3 * seconds / (subject.batch or 1) for seconds in taken or ()]
        facts = {each.name: getattr(subject, each.name) for each in dataclasses.fields(Timing)[:6]}
        timings.append(
            Timing(
                **facts,
                problem=subject.problem or times.problems.get(subject.name, ""),
                ms=spread(ms) if ms else None,
                fastest_ms=min(ms, default=None),
                ratios=ratios,
            )
        )
    return timings


@dataclass(frozen=True)
class BenchReport:
    """All that a run of `kzoo bench` measured.

    Attributes:
        environment: machine and versions.
        plan: what was asked for.
        models: what was measured of each model.
    """

    environment: dict[str, str | int | float]
    plan: Plan
    models: list[ModelBench]

    @property
    def notes(self) -> list[str]:
        """What everybody who reads the numbers must know."""
        load, cores = float(self.environment.get("load before", 0)), os.cpu_count() or 1
        busy = f"The machine was busy before the run, load {load:g} on {cores} cores: trust the fastest times alone."
        return [*NOTES, busy] if load > BUSY * cores else list(NOTES)

    @property
    def problems(self) -> list[str]:
        """Each failure with its reason."""
        return [problem for model in self.models for problem in model.problems]

    def to_json(self) -> dict:
        plan = {each.name: getattr(self.plan, each.name) for each in dataclasses.fields(Plan)}
        models = [dataclasses.asdict(model) for model in self.models]
        return {"environment": self.environment, "plan": plan, "models": models}

    def save(self, directory: Path) -> None:
        """Writes bench.json, bench.png and README.md.

        Raises:
            OutputError: the directory cannot be written.
        """
        from kzoo.bench.chart import draw_chart

        ensure_writable(directory)
        write_text(directory / JSON, json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n")
        draw_chart(self, directory / CHART)
        write_text(directory / PAGE, to_markdown(self))


def refuse_directory(directory: Path) -> None:
    """Raises `OutputError` if a report cannot be saved in `directory`, or would take the place of another page."""
    refuse_unwritable(directory)
    if (directory / PAGE).exists() and not (directory / JSON).exists():
        raise OutputError(f"{directory / PAGE} was not written by kzoo bench; choose another --output")


def tabulate(timings: Sequence[Timing]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of a table, ratios first; columns that would be empty are left out."""
    ratios = dict.fromkeys(title for timing in timings for title in timing.ratios)
    columns: dict[str, Callable[[Timing], str]] = {
        "": lambda timing: timing.name,
        **{title: partial(_ratio, title) for title in ratios},
        "ms / image": lambda timing: _text(timing.ms, short),
        "fastest": lambda timing: EMPTY if timing.fastest_ms is None else short(timing.fastest_ms),
        "GMACs": lambda timing: f"{timing.macs / 1e9:.2f}" if timing.macs else EMPTY,
        "MB": lambda timing: f"{timing.size_bytes / 1e6:.1f}" if timing.size_bytes else EMPTY,
        "partitions": lambda timing: EMPTY if timing.partitions is None else str(timing.partitions),
    }
    cells = {title: [cell(timing) for timing in timings] for title, cell in columns.items()}
    cells = {title: column for title, column in cells.items() if any(cell != EMPTY for cell in column)}
    return list(cells), [list(line) for line in zip(*cells.values(), strict=True)]


def short(number: float) -> str:
    """Three digits that count, and all that stand before the point.

    >>> short(4.257), short(1574.6)
    ('4.26', '1575')
    """
    return f"{number:.3g}" if number < 999.5 else f"{number:.0f}"


def _ratio(title: str, timing: Timing) -> str:
    return _text(timing.ratios.get(title), "{:.2f}".format)


def _text(value: Spread | None, show: Callable[[float], str]) -> str:
    if value is None:
        return EMPTY
    median, lower, upper = (show(each) for each in (value.median, value.lower, value.upper))
    return f"{median} ({lower}–{upper})"


def to_markdown(report: BenchReport) -> str:
    """The report as a page that shows the chart beside it."""
    parts = ["# kzoo bench", f"![Times]({CHART})", "\n".join(f"- {note}" for note in report.notes)]
    for model in report.models:
        parts.append(f"## {model.title}")
        parts += [_markdown_table(*tabulate(timings)) for timings in model.groups]
    if report.problems:
        parts += ["## Failures", "\n".join(f"- {problem}" for problem in report.problems)]
    parts += ["## Machine", _markdown_table(["", "value"], [[key, str(v)] for key, v in report.environment.items()])]
    return "\n\n".join(parts) + "\n"


def _markdown_table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = (" | ".join(cells) for cells in (titles, ["---"] * len(titles), *lines))
    return "\n".join(f"| {row} |" for row in rows)


def read_environment() -> dict[str, str | int | float]:
    """What the times depend on: machine, load before the run, versions."""
    facts: dict[str, str | int | float] = {
        "cpu": _cpu(),
        "cores": os.cpu_count() or "unknown",
        "system": f"{platform.system()} {platform.machine()}",
    }
    facts["devices of Keras"] = ", ".join(keras.distribution.list_devices())
    if hasattr(os, "getloadavg"):
        facts["load before"] = round(os.getloadavg()[0], 2)
    facts |= {"kzoo": kzoo.__version__, "python": platform.python_version()}
    return facts | {package: version(package) for package in PACKAGES}


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
