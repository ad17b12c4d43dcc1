"""Files of keras.applications: the published hash, the cache, and nothing left of a download that failed."""

import hashlib

import keras
import pytest

from kzoo.errors import WeightsError
from kzoo.weights import fetch
from kzoo.weights.fetch import fetch_keras

URL = "https://example.org/applications/vgg16.h5"
CONTENT = b"weights"
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fetch, "why_silent", lambda request: None)
    return tmp_path / "home" / "models"


def publish(tmp_path, content=CONTENT) -> str:
    """The address of a file that urllib can fetch without a network."""
    path = tmp_path / "vgg16.h5"
    path.write_bytes(content)
    return path.as_uri()


@pytest.mark.quick
def test_fetches_once(cache, tmp_path, monkeypatch):
    url = publish(tmp_path)
    path = fetch_keras(url, MD5)
    assert path == cache / "vgg16.h5"
    assert path.read_bytes() == CONTENT
    monkeypatch.setattr(keras.utils, "get_file", None)
    monkeypatch.setattr(fetch, "why_silent", None)  # not even asked
    assert fetch_keras(url, MD5) == path
    assert [item.name for item in cache.iterdir()] == ["vgg16.h5"]


def test_another_hash(cache, tmp_path):
    url = publish(tmp_path, b"half of the wei")
    with pytest.raises(WeightsError, match=rf"{url} \(.* hash does not match .*{MD5}.*; download it elsewhere"):
        fetch_keras(url, MD5)
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_fetched_again(cache, tmp_path):
    cache.mkdir(parents=True)
    (cache / "vgg16.h5").write_bytes(b"half")
    url = publish(tmp_path, b"wrong")
    with pytest.raises(WeightsError, match="hash does not match"):
        fetch_keras(url, MD5)
    assert (cache / "vgg16.h5").read_bytes() == b"half"  # as it was
    publish(tmp_path)
    assert fetch_keras(url, MD5).read_bytes() == CONTENT


@pytest.mark.parametrize("error", [OSError("cut off"), KeyboardInterrupt()])
def test_a_download_that_breaks_off(error, cache, monkeypatch):
    def get_file(name, url, cache_dir, **options):
        (cache_dir / name).write_bytes(b"half")
        raise error

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    expected = WeightsError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="could not fetch .*cut off" if expected is WeightsError else None):
        fetch_keras(URL, MD5)
    assert list(cache.iterdir()) == []


def test_no_network(cache, monkeypatch):
    monkeypatch.setattr(fetch, "why_silent", lambda request: "URLError: no route")
    with pytest.raises(
        WeightsError, match=rf"{URL} \(no answer, URLError: no route\), and {cache} does not hold it; .*pass"
    ):
        fetch_keras(URL, MD5)
    assert not cache.exists()


def test_an_error_of_the_host_is_an_answer(tmp_path):
    def refuse():
        raise fetch.urllib.error.HTTPError(URL, 403, "no", None, None)

    assert fetch.why_silent(refuse) is None
    assert fetch.why_silent(lambda: fetch._head((tmp_path / "none").as_uri())).startswith("URLError")


def test_a_cache_that_cannot_be_written(cache, tmp_path):
    (tmp_path / "home").write_text("a file")
    with pytest.raises(WeightsError, match=r"cannot write to .*KERAS_HOME"):
        fetch_keras(publish(tmp_path), MD5)
