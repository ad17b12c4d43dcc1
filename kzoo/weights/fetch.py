"""Fetching weights files: from the Hugging Face Hub, and from where keras.applications has its own."""

import functools
import hashlib
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import keras

from kzoo.errors import OutputError, WeightsError
from kzoo.files import atomic_path, ensure_writable, keras_home
from kzoo.weights.files import INDEX_FILE, SINGLE_FILE, read_index

CONNECT_SECONDS = 5  # for a host to answer at all; a download that goes on may take as long as it needs


def fetch_hub(repository: str) -> Path:
    """Fetches `model.safetensors` of a hub repository, or the index and all its shards, or finds them in the cache.

    Args:
        repository: `owner/name` or `owner/name@revision`.

    Returns:
        The file, or the index beside its shards.

    Raises:
        WeightsError: it cannot be had; within 10 s where there is no network.
    """
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    name, _, revision = repository.partition("@")
    host = constants.ENDPOINT
    # without a network the hub's own client tries for half a minute, or for minutes where nothing refuses it
    silence = why_silent(lambda: huggingface_hub.get_session().head(host, timeout=CONNECT_SECONDS))
    fetch = functools.partial(
        huggingface_hub.hf_hub_download, name, revision=revision or None, local_files_only=bool(silence)
    )
    try:
        try:
            return Path(fetch(SINGLE_FILE))
        except EntryNotFoundError:  # in shards, perhaps
            index = Path(fetch(INDEX_FILE))
        for shard in sorted(set(read_index(index).values())):
            fetch(shard)
        return index
    except WeightsError:
        raise
    except Exception as error:  # absent, private, malformed: the hub has an exception for each
        reason = f"{type(error).__name__}: {_line(error)}"
        if isinstance(error, LocalEntryNotFoundError):
            why = silence or _line(error.__cause__ or error)
            reason = f"{host} does not answer, {why}; and the local cache does not hold it"
        elif isinstance(error, EntryNotFoundError):
            reason = "the repository has neither; safetensors files alone are read"
        raise WeightsError(
            f"could not fetch {SINGLE_FILE} or {INDEX_FILE} of {repository} from the Hugging Face Hub ({reason}); "
            "download it elsewhere and pass its path as the weights"
        ) from error


def fetch_keras(url: str, file_hash: str) -> Path:
    """Fetches a file of keras.applications, or finds it where that keeps its own: `~/.keras/models`, or `KERAS_HOME`.

    Args:
        url: of the file.
        file_hash: published MD5 of the file, hexadecimal.

    Returns:
        The file, whole and with this hash.

    Raises:
        WeightsError: it cannot be had, within 10 s where there is no network, or has another hash. Nothing of the
            download is kept.
    """
    folder = keras_home() / "models"
    path = folder / url.rpartition("/")[2]
    if path.is_file():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() == file_hash:
                return path
    advice = f"download it elsewhere and pass its path as the weights, or put it into {folder}"
    if silence := why_silent(lambda: _head(url)):
        held = f"{path} has another hash than the published one" if path.is_file() else f"{folder} does not hold it"
        raise WeightsError(f"could not fetch {url} (no answer, {silence}), and {held}; {advice}")
    try:
        ensure_writable(folder)
    except OutputError as error:
        raise WeightsError(f"{error}, by setting KERAS_HOME") from error
    with atomic_path(path) as partial:  # as `get_file` keeps what has another hash, and half of a file after a kill
        try:
            keras.utils.get_file(
                partial.name,
                url,
                cache_dir=folder,
                cache_subdir="",
                file_hash=file_hash,
                hash_algorithm="md5",
                force_download=True,
            )
        except Exception as error:  # Keras raises bare ones
            raise WeightsError(f"could not fetch {url} ({_line(error)}); {advice}") from error
    return path


def why_silent(request: Callable[[], object]) -> str | None:
    """Why a host does not answer, or None if it does, were it with an error.

    Args:
        request: asks it. It runs in a thread of its own, as looking up a name of a host heeds no timeout.
    """
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            request()
            outcome.append(None)
        except urllib.error.HTTPError:
            outcome.append(None)
        except Exception as error:  # each client has its own
            outcome.append(f"{type(error).__name__}: {_line(error)}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS + 1)
    return outcome[0] if outcome else f"waited {CONNECT_SECONDS + 1} s"


def _head(url: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_SECONDS):
        pass


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
