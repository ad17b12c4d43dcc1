"""The checkpoints of a run, which survive a kill at any moment and damage to the newest of them."""

import re
import zipfile
from pathlib import Path

import keras

from kzoo.console import show
from kzoo.errors import InvalidValueError, OutputError
from kzoo.escape import terminal
from kzoo.files import PARTIAL, atomic_path
from kzoo.keras_file import open_keras
from kzoo.train.history import AGAIN

KEPT = 2  # of the newest epochs, should the newest be damaged


class Checkpoints:
    """The last two epochs of a run, and what was best when each of them ended.

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
        if not self.folder.is_dir():
            return []
        matches = (re.fullmatch(rf"{kind}_(\d+)\.keras", path.name) for path in self.folder.iterdir())
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def path(self, epoch: int, kind: str = "epoch") -> Path:
        """Where an epoch is kept."""
        return self.folder / f"{kind}_{epoch:04d}.keras"

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

    def _write(self, model: keras.Model, path: Path) -> None:
        self.folder.mkdir(exist_ok=True)
        with atomic_path(path) as partial:
            model.save(partial)

    def restore(self, model: keras.Model) -> int:
        """Takes weights and optimizer state over from the newest checkpoint that can be used.

        Returns:
            How many epochs it has seen; 0 where there is no checkpoint.

        Raises:
            OutputError: there are some, and none can be used.
        """
        first = None
        for epoch in self.epochs():
            try:
                _take_over(model, open_keras(self.path(epoch), compile=True))
            except InvalidValueError as error:
                _say(f"the checkpoint of epoch {epoch} cannot be used, trying the one before: {error}")
                first = first or error
                continue
            for number in self.epochs("best"):
                if number > epoch:  # of an epoch that comes again
                    self.path(number, "best").unlink()
            return epoch
        if first is not None:
            raise OutputError(f"none of the checkpoints can be used: {first}; {AGAIN}") from first
        return 0

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


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # absent, cut off, or no archive: zipfile, zlib and the system each raise their own
        return False


def _take_over(model: keras.Model, saved: keras.Model) -> None:
    """Weights and optimizer state of `saved`, or nothing.

    Raises:
        InvalidValueError: it is another model, or has no optimizer.
    """
    build_optimizer(model)
    if not saved.compiled:
        raise InvalidValueError("it was saved without its optimizer")
    pairs = []
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
            pairs.append((own, other))
    for own, other in pairs:
        own.assign(other)


def _say(text: str) -> None:
    show(f"[bold red]{terminal(text)}[/]")
