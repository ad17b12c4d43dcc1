"""What is asked of the Hugging Face Hub, and what is said where it has nothing or does not answer."""

import json
import threading
from unittest.mock import Mock

import pytest
from helpers import assert_weights_are, weights_of
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from weights.torch_files import assert_layer_is, random_state, save, save_shards, tiny

import kzoo
from kzoo.errors import WeightsError
from kzoo.weights import fetch

FILES = [
    "model.safetensors",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
]


class Hub:
    """Stands in for the hub, and for its cache where it is silent: what was asked, and the files of a folder."""

    def __init__(self, folder, monkeypatch, silence=None):
        self.folder, self.asked, self.silent = folder, [], bool(silence)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self.download)
        monkeypatch.setattr(fetch, "why_silent", lambda request: silence)

    def download(self, repository, filename, revision, local_files_only):
        assert local_files_only == self.silent
        self.asked.append((repository, filename, revision))
        if (self.folder / filename).exists():
            return str(self.folder / filename)
        raise LocalEntryNotFoundError(filename) if self.silent else EntryNotFoundError(filename)


def test_one_file_of_a_revision(monkeypatch, tmp_path):
    state = random_state()
    save(state, tmp_path / "model.safetensors")
    hub = Hub(tmp_path, monkeypatch)
    model = tiny()
    for source, revision in (("hf://someone/tiny", None), ("hf://someone/tiny@v2", "v2")):
        assert kzoo.load_weights(model, source).source == source
        assert_layer_is(model, "stem_conv", state, "conv1")
        assert hub.asked.pop() == ("someone/tiny", "model.safetensors", revision)


@pytest.mark.parametrize("silence", [None, "ConnectError: no route"])
def test_shards_from_the_hub_or_its_cache(silence, monkeypatch, tmp_path):
    state = random_state()
    save_shards(state, tmp_path)
    hub = Hub(tmp_path, monkeypatch, silence)
    model = tiny()
    assert len(kzoo.load_weights(model, "hf://someone/tiny").loaded) == len(model.weights)
    assert_layer_is(model, "stage2_block1_conv2", state, "layer2.0.conv2")
    assert hub.asked == [("someone/tiny", name, None) for name in FILES]


def test_a_bad_index_fetches_nothing_else(monkeypatch, tmp_path):
    (tmp_path / FILES[1]).write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    hub = Hub(tmp_path, monkeypatch)
    with pytest.raises(WeightsError, match=r"lists '../a.safetensors', which is no safetensors file beside it"):
        kzoo.load_weights(tiny(), "hf://someone/tiny")
    assert len(hub.asked) == 2


@pytest.mark.parametrize(
    ("silence", "message"),
    [
        (None, r"of someone/tiny .*\(the repository has neither; .*download it elsewhere and pass its path"),
        ("ConnectError: no route", r"does not answer, ConnectError: no route; and the local cache .*pass its path"),
    ],
)
def test_without_the_file(silence, message, monkeypatch, tmp_path):
    Hub(tmp_path, monkeypatch, silence)
    model = tiny()
    before = weights_of(model)
    with pytest.raises(WeightsError, match=message):
        kzoo.load_weights(model, "hf://someone/tiny")
    assert_weights_are(model, before)


def test_a_fetch_that_fails(monkeypatch):
    unavailable = LocalEntryNotFoundError("cannot find the requested files in the local cache")
    unavailable.__cause__ = ConnectionError("503 Service Unavailable")
    monkeypatch.setattr(fetch, "why_silent", lambda request: None)
    for error, reason in (
        (ConnectionError("no route to host\nand more"), r"ConnectionError: no route to host"),
        (unavailable, r"https://.* does not answer, 503 Service Unavailable; .* cache does not hold it"),
    ):
        monkeypatch.setattr("huggingface_hub.hf_hub_download", Mock(side_effect=error))
        with pytest.raises(WeightsError, match=rf"someone/tiny .*\({reason}\); download it"):
            kzoo.load_weights(tiny(), "hf://someone/tiny")


def test_a_malformed_address_is_told_before_the_silence(monkeypatch):
    monkeypatch.setattr(fetch, "why_silent", lambda request: "ConnectError")
    with pytest.raises(WeightsError, match=r"tiny/a/b .*\(HFValidationError: "):
        kzoo.load_weights(tiny(), "hf://someone/tiny/a/b")


def test_a_host_that_never_answers_is_given_up(monkeypatch):
    assert fetch.CONNECT_SECONDS + 1 < 10
    monkeypatch.setattr(fetch, "CONNECT_SECONDS", -0.9)
    assert fetch.why_silent(lambda: threading.Event().wait(9)).startswith("waited")
