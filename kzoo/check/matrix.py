"""The matrix of models and checks: made model by model, kept in a file, shown as tables."""

import contextlib
import functools
import json
import logging
import multiprocessing
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras

import kzoo
from kzoo.check.checks import CHECKS, Skipped
from kzoo.check.jax_process import JaxProcess
from kzoo.check.narrow_model import NarrowModel
from kzoo.errors import InvalidValueError, explain
from kzoo.files import write_text
from kzoo.reading import read_json
from kzoo.registry import list_models, lookup

# TensorFlow never lets go of what XLA compiled: some 600 memory maps for a model, of the 65,530 that Linux allows
PER_PROCESS = 25


@dataclass(frozen=True)
class Outcome:
    """What a check said.

    Attributes:
        passed: whether the check passed; None if it was skipped.
        note: a number, or the reason of a failure or a skip.
    """

    passed: bool | None
    note: str


@dataclass(frozen=True)
class Verdict:
    """The outcomes of all checks of a model.

    Attributes:
        config: configuration of the narrow model that was checked; another one is checked anew.
        seconds: time that its checks took, in seconds.
        outcomes: check -> its outcome.
    """

    config: str
    seconds: float
    outcomes: dict[str, Outcome]

    @property
    def failed(self) -> bool:
        return any(outcome.passed is False for outcome in self.outcomes.values())


def check_models(names: Sequence[str], checks: Sequence[str] = tuple(CHECKS)) -> Iterator[tuple[str, Verdict]]:
    """Makes the checks on each model, and yields the verdicts as they come.

    An error in a check is its outcome and ends nothing else. More than `PER_PROCESS` models are checked in
    processes of their own, one after the other; should one die, that is the outcome of its last model.
    """
    if len(names) <= PER_PROCESS:
        with JaxProcess() as jax:
            for name in names:
                yield name, _check_model(name, checks, jax)
        return
    names = list(names)
    while names:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            for _ in range(min(PER_PROCESS, len(names))):
                name = names.pop(0)
                try:
                    verdict = pool.submit(check_in_worker, name, checks).result()
                except BrokenProcessPool:
                    died = Outcome(False, "the process that checked it died")
                    yield name, Verdict(config_of(name), 0.0, dict.fromkeys(checks, died))
                    break
                yield name, verdict


def check_in_worker(name: str, checks: Sequence[str]) -> Verdict:
    """The verdict of a model; the process under JAX stays for the next one, and ends with this process."""
    return _check_model(name, checks, _shared_jax())


@functools.cache
def _shared_jax() -> JaxProcess:
    return JaxProcess()


def _check_model(name: str, checks: Sequence[str], jax: JaxProcess) -> Verdict:
    """The verdict of a model. Keras' global state is cleared behind it."""
    start = time.perf_counter()
    with _quiet(), tempfile.TemporaryDirectory() as directory:
        narrow = NarrowModel(name, Path(directory), jax if jax.available() else None)
        outcomes = {check: _outcome(CHECKS[check], narrow) for check in checks}
    keras.backend.clear_session()
    return Verdict(config_of(name), round(time.perf_counter() - start, 1), outcomes)


def _outcome(check, narrow: NarrowModel) -> Outcome:
    try:
        return Outcome(True, check(narrow))
    except Skipped as skip:
        return Outcome(None, str(skip))
    except Exception as error:
        return Outcome(False, explain(error))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps logs off the screen: what folding leaves is a figure of the matrix, and every model is compiled anew."""
    logs = [logging.getLogger(name) for name in ("kzoo", "tensorflow")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def config_of(name: str) -> str:
    """The configuration of the narrow model."""
    entry = lookup(name)
    return f"{replace(entry.config, **entry.narrow)}, {entry.preprocessing}, {entry.narrow_size} pixels"


class MatrixFile:
    """The verdicts in `matrix.json`, written whole after each model.

    Rows that another version of kzoo made, or that have other checks or another configuration, are left out.

    Raises:
        InvalidValueError: the file is there and is no matrix.
    """

    def __init__(self, path: Path):
        self.path = path
        self.verdicts: dict[str, Verdict] = {}
        if not path.exists():
            return
        try:
            content = read_json(path)
            version, verdicts = content["kzoo"], content["models"]
            for name, verdict in verdicts.items():
                outcomes = {check: Outcome(**outcome) for check, outcome in verdict["outcomes"].items()}
                self.verdicts[name] = Verdict(verdict["config"], verdict["seconds"], outcomes)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidValueError(
                f"{path} is no matrix of kzoo check; remove it or choose another --output"
            ) from error
        known = set(list_models())
        self.verdicts = {
            name: verdict
            for name, verdict in self.verdicts.items()
            if version == kzoo.__version__
            and name in known
            and verdict.config == config_of(name)
            and list(verdict.outcomes) == list(CHECKS)
        }

    def add(self, name: str, verdict: Verdict) -> None:
        self.verdicts[name] = verdict
        models = {name: asdict(self.verdicts[name]) for name in sorted(self.verdicts)}
        content = {"kzoo": kzoo.__version__, "models": models}
        write_text(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def by_family(verdicts: Mapping[str, Verdict]) -> dict[str, dict[str, Verdict]]:
    """The verdicts of each family, families and names sorted, resnet18 before resnet101."""

    def key(name: str) -> tuple:
        return lookup(name).family, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    families: dict[str, dict[str, Verdict]] = {}
    for name in sorted(verdicts, key=key):
        families.setdefault(lookup(name).family, {})[name] = verdicts[name]
    return families


def summary(verdicts: Mapping[str, Verdict]) -> str:
    """How many models and checks passed, in a sentence."""
    outcomes = [outcome.passed for verdict in verdicts.values() for outcome in verdict.outcomes.values()]
    failed = sum(verdict.failed for verdict in verdicts.values())
    parts = [f"{len(verdicts) - failed} of {len(verdicts)} models pass", f"{outcomes.count(True)} checks passed"]
    parts += [f"{outcomes.count(False)} failed"] if False in outcomes else []
    parts += [f"{outcomes.count(None)} skipped"] if None in outcomes else []
    return ", ".join(parts)
