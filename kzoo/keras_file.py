"""Opening `.keras` files from anywhere: what one claims is looked at before Keras reads it."""

import math
import re
import threading
import warnings
import zipfile
from pathlib import Path

import keras

from kzoo.errors import LONGEST_REASON, InvalidValueError, KzooError
from kzoo.escape import printable
from kzoo.hdf5 import open_numbers
from kzoo.reading import LARGEST_JSON_BYTES, SMALL_BYTES, largest_content, parse_json

CONFIG, WEIGHTS, METADATA, ASSETS = "config.json", "model.weights.h5", "metadata.json", "assets/"


def open_keras(path: str | Path, *, compile: bool = False) -> keras.Model:
    """Opens a `.keras` file. Nothing in it is run: a `Lambda` layer is refused.

    Before Keras reads the file, its parts must declare no more than `kzoo.reading.largest_content` of its size, its
    weights must be numbers in the file itself, and the model that it describes may have no more of them than the
    file holds.

    Args:
        path: of the file.
        compile: whether the optimizer and the loss that the model was saved with are restored.

    Raises:
        InvalidValueError: it is absent, damaged or refused; one line that says why.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidValueError(f"no file at {path}")
    try:
        config, held = _check_parts(path)
        _check_size(config, held)
        with warnings.catch_warnings():  # of parts without weights; where weights are missing Keras raises
            warnings.filterwarnings("ignore", "Skipping nested container")
            return keras.saving.load_model(path, compile=compile)
    except Exception as error:  # zip, JSON, HDF5 and Keras each raise their own
        raise InvalidValueError(f"{path} cannot be read as a Keras model ({_reason(error)})") from error


def read_member(archive: zipfile.ZipFile, name: str, archive_bytes: int) -> bytes:
    """A part of a zip archive.

    Raises:
        InvalidValueError: the archive does not have that part once, or declares too much in all.
    """
    infos = archive.infolist()
    if (count := sum(info.filename == name for info in infos)) != 1:
        raise InvalidValueError(f"it holds {count} parts of the name {name}, not one")
    declared = sum(info.file_size for info in infos)
    if declared > largest_content(archive_bytes):
        raise InvalidValueError(
            f"it has {archive_bytes:,} bytes and unpacks to {declared:,}; "
            f"at most {largest_content(archive_bytes):,} would be unpacked"
        )
    with archive.open(name) as part:
        return part.read(archive.getinfo(name).file_size)


def _check_parts(path: Path) -> tuple[dict, int]:
    """The description of the model, and how many numbers its weights are."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name not in (CONFIG, WEIGHTS, METADATA) and not name.startswith(ASSETS):
                raise InvalidValueError(f"it holds {name!r}, which Keras does not write")
        described = read_member(archive, CONFIG, size)
        weights = read_member(archive, WEIGHTS, size)
    if len(described) > LARGEST_JSON_BYTES:
        raise InvalidValueError(f"its {CONFIG} has {len(described):,} bytes; at most {LARGEST_JSON_BYTES:,} are read")
    with open_numbers(weights) as (_, numbers):
        held = sum(math.prod(dataset.shape) for dataset in numbers.values())
    return parse_json(described.decode("utf-8"), CONFIG), held


def _check_size(config: object, held: int) -> None:
    """Raises unless the file holds the numbers of the model that it describes, which is built without them for that.

    It is built in a thread of its own, as Keras would make up the numbers later in this one; the objects that Keras
    knows in this one alone, those of a `custom_object_scope`, are handed over.
    """
    if not isinstance(config, dict):
        raise InvalidValueError(f"its {CONFIG} describes no model")
    config["compile_config"] = None
    outcome: list[int | Exception] = []

    def build() -> None:
        try:
            with keras.saving.custom_object_scope(known), keras.StatelessScope(initialize_variables=False):
                model = keras.saving.deserialize_keras_object(config, safe_mode=True)
            if not isinstance(model, keras.Model):
                raise InvalidValueError(f"its {CONFIG} describes no model but {type(model).__name__}")
            outcome.append(sum(math.prod(variable.shape) for variable in model.variables))
        except Exception as error:
            outcome.append(error)

    found = {text: keras.saving.get_registered_object(text) for text in _texts(config)}
    known = {text: each for text, each in found.items() if each is not None}
    thread = threading.Thread(target=build)
    thread.start()
    thread.join()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    if outcome[0] > held + SMALL_BYTES // 4:  # small, as a model may make some of its numbers itself
        raise InvalidValueError(f"it describes a model of {outcome[0]:,} numbers and holds {held:,}")


def _texts(value: object) -> set[str]:
    """Every text in a value from a JSON file: the name of an object may be any of them."""
    if isinstance(value, str):
        return {value}
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(_texts, inside))


def _reason(error: BaseException) -> str:
    """What was first raised, which is nearest to what is the matter with the file, in one line."""
    while not isinstance(error, KzooError) and (cause := error.__cause__ or error.__context__):
        error = cause
    text = printable(" ".join(str(error).split())) or type(error).__name__
    if unknown := re.search(r"Could not locate (?:class|function) '([^']+)'", text):
        return f"it uses {unknown[1]!r}, which neither Keras nor kzoo has; first import the module that registers it"
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"
