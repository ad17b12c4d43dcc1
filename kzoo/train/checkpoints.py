"""The checkpoints of a run, which survive a kill at any moment and damage to the newest of them.

mark: how far a run is: the epochs that are done, and the batches of the next one.
state: what a run inside an epoch has besides its model: sums of its metrics, and where its random layers are.
"""

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from kzoo.console import show
from kzoo.errors import InvalidValueError, OutputError
from kzoo.escape import terminal
from kzoo.files import PARTIAL, atomic_path
from kzoo.keras_file import open_keras
from kzoo.train.history import AGAIN

KEPT = 2  # of the newest epochs, should the newest be damaged


class Mark(NamedTuple):
    """How far a run is.

    Attributes:
        epochs: number of epochs that are done.
        batches: number of batches of the next epoch that are done.
    """

    epochs: int
    batches: int = 0


class Restored(NamedTuple):
    """A run from which it can go on.

    Attributes:
        model: compiled model, with weights and the state of its optimizer.
        mark: how far it is.
        state: state of the mark, empty between epochs.
    """

    model: keras.Model
    mark: Mark
    state: Mapping[str, np.ndarray]


class Found(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        mark: how far it is.
        values: of the weights and of the optimizer's state, in their order; none for the beginning of a run.
        state: state of the mark.
    """

    mark: Mark
    values: Sequence[np.ndarray]
    state: Mapping[str, np.ndarray]


class Checkpoints:
    """The last two epochs of a run, what was best when each of them ended, and the last moment inside an epoch.

    Each file has the number of its epoch, counted from one, in its name; it is written under another name and then
    renamed, so that no moment exists at which files and numbers disagree.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def sweep(self) -> None:
        """Removes what a kill left half-written.

        Raises:
            OutputError: the folder is a file.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(f"{self.folder} is a file, where the folder of checkpoints was; put it back, or {AGAIN}")
        for partial in self.folder.glob(f".*{PARTIAL}*"):
            partial.unlink()

    def epochs(self, kind: str = "epoch") -> list[int]:
        """Numbers of the epochs of which there is a file, the newest first; `"best"` for those that were best."""
        return sorted((int(number) for (number,) in self._matches(rf"{kind}_(\d+)\.keras")), reverse=True)

    def _matches(self, pattern: str) -> list[tuple[str, ...]]:
        """What the groups of a pattern are in the names of files."""
        if not self.folder.is_dir():
            return []
        found = (re.fullmatch(pattern, path.name) for path in self.folder.iterdir())
        return [match.groups() for match in found if match]

    def path(self, epoch: int, kind: str = "epoch") -> Path:
        """Where an epoch is kept."""
        return self.folder / f"{kind}_{epoch:04d}.keras"

    def marks(self) -> list[Mark]:
        """How far each checkpoint is from which the run can go on, the furthest first."""
        steps = self._matches(r"step_(\d+)_(\d+)\.keras")
        inside = [Mark(int(epochs), int(batches)) for epochs, batches in steps]
        return sorted([*map(Mark, self.epochs()), *inside], reverse=True)

    def step_path(self, mark: Mark) -> Path:
        """Where a moment inside an epoch is kept; its state lies beside it, as `.npz`."""
        return self.folder / f"step_{mark.epochs:04d}_{mark.batches:06d}.keras"

    def save_step(self, model: keras.Model, mark: Mark, state: Mapping[str, np.ndarray]) -> None:
        """Keeps a moment inside an epoch, and removes the one before."""
        path = self.step_path(mark)
        self.folder.mkdir(exist_ok=True)
        arrays: dict[str, Any] = dict(state)
        with atomic_path(path.with_suffix(".npz")) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)
        self._write(model, path)  # last: without it the state is of no use
        self._remove_steps(but=mark)

    def _remove_steps(self, but: Mark | None = None) -> None:
        for path in self.folder.glob("step_*"):
            if but is None or path.stem != self.step_path(but).stem:
                path.unlink()

    def save_best(self, model: keras.Model, epoch: int) -> None:
        """Keeps the best epoch yet; called before `save` of that epoch."""
        self._write(model, self.path(epoch, "best"))

    def save(self, model: keras.Model, epoch: int) -> None:
        """Keeps an epoch, with the state of the optimizer, and removes those that are no longer needed."""
        self._write(model, self.path(epoch))
        kept = self.epochs()[:KEPT]
        bests = self.epochs("best")
        needed = {next((number for number in bests if number <= last), None) for last in kept}
        for kind, numbers, keep in (("epoch", self.epochs(), kept), ("best", bests, needed)):
            for number in set(numbers) - set(keep):  # only now: a kill before leaves the older ones whole
                self.path(number, kind).unlink()
        self._remove_steps()

    def _write(self, model: keras.Model, path: Path) -> None:
        self.folder.mkdir(exist_ok=True)
        with atomic_path(path) as partial:
            model.save(partial)

    def restore(self, model_at: Callable[[Mark], keras.Model]) -> Restored:
        """Takes weights and optimizer state over from the newest checkpoint that can be used.

        Args:
            model_at: gives the compiled model of a mark.

        Returns:
            The model, and how far it is: nowhere where there is no checkpoint.

        Raises:
            OutputError: there are some, and none can be used.
        """
        found = self.find(model_at)
        model = model_at(found.mark)
        if found.values:
            for variable, value in zip(_state_of(model), found.values, strict=True):
                variable.assign(value)
        return Restored(model, found.mark, found.state)

    def find(self, model_at: Callable[[Mark], keras.Model]) -> Found:
        """What the newest checkpoint that can be used holds; arguments and errors as of `restore`."""
        first = None
        for mark in self.marks():
            path, model = self.step_path(mark) if mark.batches else self.path(mark.epochs), model_at(mark)
            try:
                state = _read_state(path.with_suffix(".npz")) if mark.batches else {}
                values = _values(model, open_keras(path, compile=True))
            except InvalidValueError as error:
                what = f"behind batch {mark.batches} of epoch" if mark.batches else "of epoch"
                number = mark.epochs + bool(mark.batches)
                _say(f"the checkpoint {what} {number} cannot be used, trying the one before: {error}")
                first = first or error
                continue
            for number in self.epochs("best"):
                if number > mark.epochs:  # of an epoch that comes again
                    self.path(number, "best").unlink()
            return Found(mark, values, state)
        if first is not None:
            raise OutputError(f"none of the checkpoints can be used: {first}; {AGAIN}") from first
        return Found(Mark(0), [], {})

    def best(self, epoch: int, averaged: bool = False) -> Path:
        """The file of the best epoch.

        Args:
            epoch: number of it.
            averaged: whether the best is an average of weights, which the file of the epoch is not.

        Raises:
            OutputError: it is absent or damaged.
        """
        for kind in ("best",) if averaged else ("best", "epoch"):
            if _is_whole(self.path(epoch, kind)):
                return self.path(epoch, kind)
        path = self.path(epoch, "best")
        problem = "is damaged" if path.exists() else "is not there"
        raise OutputError(f"{path}, the best epoch, {problem}; put it back, or {AGAIN}")


def build_optimizer(model: keras.Model) -> None:
    """Makes the state of a compiled model's optimizer, once: Keras' loss scaling would make some of it again."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _read_state(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as state:  # which refuses pickles
            return dict(state)
    except Exception as error:  # absent, cut off, or no archive: NumPy, zipfile and the system each raise their own
        raise InvalidValueError(f"its state in {path.name} cannot be read") from error


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # absent, cut off, or no archive: zipfile, zlib and the system each raise their own
        return False


def _state_of(model: keras.Model) -> list[keras.Variable]:
    """Weights and optimizer state of a compiled model."""
    build_optimizer(model)
    return [*model.weights, *model.optimizer.variables]


def _values(model: keras.Model, saved: keras.Model) -> list[np.ndarray]:
    """Weights and optimizer state of `saved`, for those of `model`.

    Raises:
        InvalidValueError: it is another model, or has no optimizer.
    """
    if not saved.compiled:
        raise InvalidValueError("it was saved without its optimizer")
    build_optimizer(model)
    for mine, theirs in (
        (model.weights, saved.weights),
        (model.optimizer.variables, saved.optimizer.variables),
    ):
        if len(mine) != len(theirs):
            raise InvalidValueError(f"it has {len(theirs)} variables where the model has {len(mine)}")
        for own, other in zip(mine, theirs, strict=True):
            if own.shape != other.shape:
                raise InvalidValueError(
                    f"{other.path} is {tuple(other.shape)}, and {tuple(own.shape)} in the model of this run: "
                    "the classes or the model have changed"
                )
    return [variable.numpy() for variable in (*saved.weights, *saved.optimizer.variables)]


def _say(text: str) -> None:
    show(f"[bold red]{terminal(text)}[/]")
