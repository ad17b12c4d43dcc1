"""A second process that computes saved models with JAX, because one process has one backend."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np

from kzoo.apart import pipes_of
from kzoo.check.probe import relative_error
from kzoo.errors import CheckFailed, explain

CHILD = "from kzoo.check.jax_process import serve; serve()"
# Hundreds of small programs are compiled for each model and run once
OUTPUT, ONLY = "output_", "only"  # in a .npz file: before the names of outputs, and the name of one without
QUICK_COMPILER = "--xla_backend_optimization_level=0"


def jax_environment() -> dict[str, str]:
    """The environment of a process that computes under JAX, on the processor."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILER}".strip()
    return os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


class JaxProcess:
    """Computes models under JAX while this process does something else.

    The process starts with the first question and serves until the block ends.

    Example:
        >>> with JaxProcess() as jax:
        ...     jax.ask(path, images, outputs)
        ...     error = jax.answer(path)
    """

    def __init__(self):
        self._child: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None

    @staticmethod
    def available() -> bool:
        """Whether JAX is installed."""
        return importlib.util.find_spec("jax") is not None

    def __enter__(self) -> "JaxProcess":
        return self

    def __exit__(self, *error) -> None:
        self._stop()

    def ask(self, path: Path, images: np.ndarray, outputs: np.ndarray | Mapping[str, np.ndarray]) -> None:
        """Has the `.keras` file at `path` computed on `images`, to be compared with `outputs`."""
        named = outputs if isinstance(outputs, Mapping) else {ONLY: outputs}
        arrays: dict[str, Any] = {"images": images, **{OUTPUT + name: each for name, each in named.items()}}
        np.savez(path.with_suffix(".npz"), **arrays)
        questions, _ = pipes_of(self._child or self._start())
        with contextlib.suppress(BrokenPipeError):  # the answer tells why
            questions.write(f"{path}\n")
            questions.flush()

    def answer(self, path: Path) -> float:
        """The relative error of the file at `path`, which was asked for; waits for it.

        Raises:
            CheckFailed: JAX cannot compute the model.
        """
        while self._child is not None:
            _, answers = pipes_of(self._child)
            line = answers.readline()
            if not line:
                raise CheckFailed(self._stop())
            answer = json.loads(line)
            if answer["path"] == str(path):
                if "failure" in answer:
                    raise CheckFailed(answer["failure"])
                return answer["error"]
        raise CheckFailed("the JAX process is not running")

    def _start(self) -> subprocess.Popen[str]:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  until _stop
        self._child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env=jax_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        return self._child

    def _stop(self) -> str:
        """Ends the process; returns how it ended by itself, if it did."""
        if self._child is None or self._log is None:
            return ""
        questions, answers = pipes_of(self._child)
        with contextlib.suppress(BrokenPipeError):
            questions.close()
        answers.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=1)
        self._child.kill()
        status = self._child.wait()
        self._log.seek(0)
        said = self._log.read().strip().splitlines()
        self._log.close()
        self._child = None
        return f"the JAX process ended with status {status}: {said[-1] if said else 'it said nothing'}"


def serve() -> None:
    """The child: reads paths of `.keras` files, writes their errors against the `.npz` beside them as JSON."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # nothing else may speak between the answers
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        try:
            arrays = np.load(path.with_suffix(".npz"))
            outputs = keras.saving.load_model(path).predict_on_batch(arrays["images"])
            named = outputs if isinstance(outputs, dict) else {ONLY: outputs}
            expected = {name.removeprefix(OUTPUT): arrays[name] for name in arrays if name.startswith(OUTPUT)}
            answer: dict[str, float | str] = {"error": relative_error(named, expected)}
        except Exception as error:
            answer = {"failure": explain(error)}
        print(json.dumps({"path": str(path), **answer}), file=answers, flush=True)
