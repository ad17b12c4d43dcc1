"""Tables of pictures: CSV, TSV or Parquet with the columns `path`, `label` and perhaps `split`.

With a separator a cell of `label` holds any number of classes, such as "cat|dog", none of them too.
"""

import csv
import io
import itertools
import logging
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from kzoo.data.listing import SPLIT_NAMES, TABLES, Listing, path_inside
from kzoo.errors import DatasetError, InvalidValueError, counted
from kzoo.reading import read_text

_log = logging.getLogger("kzoo")
LARGEST_BYTES = 2**28  # of a table of text
COLUMNS = ("path", "label", "split")
SEPARATORS = "|;,+&/"  # that are in use between labels
Row = tuple[str, dict[str, str]]  # its place in the file, for errors, and its cells by column


def is_table(name: str) -> bool:
    """Whether a dataset is called as a table is."""
    return name.lower().endswith(TABLES)


def list_rows(table: Path, separator: str | None = None) -> Listing:
    """The pictures that a table names, by paths from the table's folder; white space around cells does not count.

    Classes are sorted, as numbers where all of them are. Columns besides `path`, `label` and `split` say nothing.

    Args:
        table: CSV in UTF-8 with commas (or semicolons, as spreadsheets write it in half the world), TSV, or Parquet,
            which needs pyarrow.
        separator: what stands between the classes of a picture that may have several; None for one class each.

    Raises:
        DatasetError: it cannot be read, lacks a column, has a row with more or less cells, an empty cell, a picture
            twice, one that is not there, or a path that leaves the folder; the message names the line.
    """
    if not table.is_file():
        raise DatasetError(f"no table at {str(table)!r}")
    try:
        rows = list(
            _parquet_rows(table, separator)
            if table.suffix.lower() == ".parquet"
            else text_rows(table, lambda names: _header(table, names))
        )
    except (InvalidValueError, csv.Error) as error:
        raise DatasetError(str(error) if isinstance(error, InvalidValueError) else f"{table}: {error}") from error
    if not rows:
        raise DatasetError(f"{table} has no rows under its header; each row is a picture with its class")
    divided = any(cells.get("split") for _, cells in rows)
    places: dict[str, str] = {}
    labels, splits, twice = [], [], []
    for place, cells in rows:
        for column in COLUMNS if divided else COLUMNS[:2]:
            if not cells[column] and (column != "label" or separator is None):
                raise DatasetError(f"{table}, {place}: no {column}; each row must have one")
        path = path_inside(cells["path"], table.parent, f"{table}, {place}")
        if path in places:
            raise DatasetError(f"{table}, {place}: {path} is there twice, first in {places[path]}; remove one")
        places[path] = place
        names = _names(table, place, unicodedata.normalize("NFC", cells["label"]), separator)
        labels.append(set(names))
        if len(set(names)) < len(names):
            twice.append(f"{place}: label {cells['label']!r}")
        if divided:
            split = SPLIT_NAMES.get(cells["split"].lower())
            if split is None:
                known = ", ".join(SPLIT_NAMES)
                raise DatasetError(f"{table}, {place}: split {cells['split']!r} is not accepted; use one of {known}")
            splits.append(split)
    if twice:
        others = counted(len(twice) - 1, "more row")
        more = f"; so {'does' if len(twice) == 2 else 'do'} {others}" if len(twice) > 1 else ""
        _log.warning(f"{table}, {twice[0]} names a class twice, which counts once{more}")
    if separator is not None and max(map(len, labels)) < 2:
        _refuse_other_separator(table, separator, {name for names in labels for name in names})
        _log.warning(
            f"{table} has no image with two labels, such as 'a{separator}b': label_separator is what stands between "
            "the classes of a picture"
        )
    check_files(table, places)
    classes = sorted_classes(table, {name for names in labels for name in names})
    ranks = {name: rank for rank, name in enumerate(classes)}
    ordered = [tuple(sorted(names, key=ranks.__getitem__)) for names in labels]
    return Listing(str(table), table.parent, [*places], ordered, splits if divided else None, classes, separator)


def _refuse_other_separator(table: Path, separator: str, names: set[str]) -> None:
    """Raises if what are no labels by the separator are some by another one: parts of them stand alone elsewhere."""
    for name, other in itertools.product(sorted(names), SEPARATORS):
        parts = {part.strip() for part in name.split(other)}
        if len(parts) > 1 and parts & names:
            raise DatasetError(
                f"{table}: label_separator={separator!r} parts no label, and {name!r} has {other!r} between labels; "
                f"give label_separator={other!r}"
            )


def _names(table: Path, place: str, cell: str, separator: str | None) -> list[str]:
    """The classes that a cell names."""
    if separator is None:
        return [cell]
    names = [name.strip() for name in cell.split(separator)] if cell else []
    if not all(names):
        raise DatasetError(f"{table}, {place}: label {cell!r} has nothing before or behind a {separator!r}; remove it")
    return names


def text_rows(table: Path, read_header: Callable[[list[str]], list[str]]) -> Iterator[Row]:
    """The rows of a CSV or TSV file that are not empty.

    Args:
        table: the file.
        read_header: makes the names of the columns of the cells of its first row.

    Raises:
        DatasetError: an empty file, or a row with more or less cells than the first.
        InvalidValueError: it cannot be read.
        csv.Error: it is no table.
    """
    text = read_text(table, LARGEST_BYTES)
    first = text.lstrip().split("\n", 1)[0]
    delimiter = "\t" if table.suffix.lower() == ".tsv" else ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    header: list[str] | None = None
    for cells in reader:
        place = f"line {reader.line_num}"
        stripped = [cell.strip() for cell in cells]
        if not any(stripped):
            continue
        if header is None:
            header = read_header(stripped)
        elif len(cells) != len(header):
            raise DatasetError(f"{table}, {place}: {len(cells)} cells, and the header has {len(header)}; quote commas")
        else:
            yield place, dict(zip(header, stripped, strict=True))
    if header is None:
        raise DatasetError(f"{table} is empty; it must have a header, then a row for each picture")


def _parquet_rows(table: Path, separator: str | None) -> Iterator[Row]:
    """Rows of Parquet; of the columns that are needed alone."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(f"{table} needs pyarrow: pip install pyarrow, or save the table as CSV") from error
    try:
        file = pyarrow.parquet.ParquetFile(table)
        names = file.schema_arrow.names
        wanted = [name for name, column in zip(names, _header(table, names), strict=True) if column in COLUMNS]
        rows = file.read(wanted).to_pylist()
    except DatasetError:
        raise
    except Exception as error:  # pyarrow's, or Python's own for text and dates that are none
        raise DatasetError(f"{table} cannot be read as Parquet ({' '.join(str(error).split())})") from error
    for number, row in enumerate(rows, start=1):
        cells = {}
        for name, value in row.items():
            if isinstance(value, list):
                value = _joined(table, number, name, value, separator)
            cells[name.strip().lower()] = _cell(value)
        yield f"row {number}", cells


def _joined(table: Path, number: int, column: str, names: list, separator: str | None) -> str:
    """A list of classes as the text of a cell."""
    if separator is None or column.strip().lower() != "label":
        raise DatasetError(
            f"{table}, row {number}: {column} holds a list; several labels of an image are read with a "
            "label_separator, such as --label-separator +"
        )
    cells = [_cell(name) for name in names]
    if holds := [cell for cell in cells if separator in cell]:
        raise DatasetError(
            f"{table}, row {number}: the label {holds[0]!r} holds {separator!r}; take another separator"
        )
    return separator.join(cells)


def _cell(value: object) -> str:
    """A value as text; nothing where it is missing, which in a column of numbers is NaN."""
    return "" if value is None or value != value else str(value).strip()


def _header(table: Path, names: list[str]) -> list[str]:
    """The names of the columns in small letters."""
    header = [name.strip().lower() for name in names]
    needed = [column for column in COLUMNS if header.count(column) != 1 and (column != "split" or column in header)]
    if needed:
        found = ", ".join(repr(name) for name in names[:8])
        raise DatasetError(
            f"{table} must have a header with one column path, one label and perhaps one split; its first line is "
            f"{found[:200]}"
        )
    return header


def check_files(table: Path, places: dict[str, str]) -> None:
    """Raises if files are not there."""
    if absent := [path for path in places if not (table.parent / path).is_file()]:
        more = f", nor are {len(absent) - 1} more" if len(absent) > 1 else ""
        raise DatasetError(
            f"{table}, {places[absent[0]]}: {absent[0]} is no file in {table.parent}{more}; paths go from the table's "
            "folder, with / between folders"
        )


def sorted_classes(table: Path, names: set[str]) -> tuple[str, ...]:
    """The classes, sorted: as numbers where all are."""
    classes = sorted(names)
    try:
        numbers = {name: float(name) for name in classes}
    except ValueError:
        return tuple(classes)
    if len(set(numbers.values())) < len(classes):
        one, other = next(
            (one, other)
            for index, one in enumerate(classes)
            for other in classes[:index]
            if numbers[one] == numbers[other]
        )
        raise DatasetError(f"{table}: the labels {other!r} and {one!r} are one number; write them alike")
    return tuple(sorted(classes, key=numbers.__getitem__))
