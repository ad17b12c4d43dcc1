"""Which file of a run's dataset was in which split: written down, and compared when the run goes on."""

import csv
import io
from pathlib import Path

from kzoo.data.split import ImageDataset
from kzoo.errors import InvalidValueError, OutputError
from kzoo.files import write_text
from kzoo.reading import read_text
from kzoo.train.history import AGAIN

SPLITS = "splits.csv"
COLUMNS = ["path", "label", "split"]
LARGEST_BYTES = 2**28
Place = tuple[str, str]  # label and split of a file


def places_of(data: ImageDataset) -> dict[str, Place] | None:
    """Label and split of each file of a dataset, by its path; None for a dataset that is not of files."""
    places: dict[str, Place] = {}
    for name in ("train", "validation", "test"):
        files = getattr(data, name).files
        if files is None:
            return None
        places |= {path: (label, name) for path, label in files}
    return places


def write_splits(data: ImageDataset, directory: Path) -> None:
    """Writes `splits.csv` with the columns path, label and split, sorted by path, for a dataset of files."""
    places = places_of(data)
    if places is None:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([path, *places[path]] for path in sorted(places))
    write_text(directory / SPLITS, text.getvalue())


def check_splits(data: ImageDataset, directory: Path) -> None:
    """Raises `OutputError` unless the run of `directory` has the same files in the same splits; an older run does not
    tell."""
    path, now = directory / SPLITS, places_of(data)
    if not path.exists() or now is None:
        return
    before = _read(path)
    changes = {
        "added": [name for name in now if name not in before],
        "removed": [name for name in before if name not in now],
        "moved to another split": [name for name in now if name in before and now[name][1] != before[name][1]],
        "with another label": [name for name in now if name in before and now[name][0] != before[name][0]],
    }
    told = ", ".join(f"{len(names)} {what} (such as {min(names)})" for what, names in changes.items() if names)
    if told:
        raise OutputError(
            f"{directory} holds a run on other files: {told}; put the dataset back as it was, choose another "
            f"--output-dir, or {AGAIN}"
        )


def _read(path: Path) -> dict[str, Place]:
    try:
        rows = csv.reader(io.StringIO(read_text(path, LARGEST_BYTES), newline=""), strict=True)
        if next(rows, None) != COLUMNS:
            raise InvalidValueError(f"{path} does not begin with {','.join(COLUMNS)}")
        return {name: (label, split) for name, label, split in rows}
    except (csv.Error, ValueError) as error:  # ValueError: a row of another length
        reason = error if isinstance(error, InvalidValueError) else f"cannot read {path}: {error}"
        raise OutputError(f"{reason}; put it back, or {AGAIN}") from error
