"""Weights of the hub, without a network."""

import pytest
from helpers import assert_weights_are, weights_of
from weights.torch_files import assert_layer_is, random_state, save, tiny

import kzoo
from kzoo.errors import WeightsError


def test_hub(monkeypatch, tmp_path):
    asked, state = [], random_state()
    path = save(state, tmp_path / "model.safetensors")

    def download(repository, filename):
        asked.append((repository, filename))
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    model = tiny()
    assert kzoo.load_weights(model, "hf://someone/tiny").source == "hf://someone/tiny"
    assert_layer_is(model, "stem_conv", state, "conv1")
    with pytest.raises(WeightsError, match="does not fit resnet18"):
        kzoo.build("resnet18", weights="imagenet")
    with pytest.raises(WeightsError, match="does not fit resnet18"):
        kzoo.build("resnet18", weights="a1_in1k")
    hub = ("timm/resnet18.a1_in1k", "model.safetensors")
    assert asked == [("someone/tiny", "model.safetensors"), hub, hub]


def test_hub_out_of_reach(monkeypatch):
    def download(repository, filename):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    model = tiny()
    before = weights_of(model)
    with pytest.raises(WeightsError, match=r"someone/tiny .*\(ConnectionError: no route to host\); download it"):
        kzoo.load_weights(model, "hf://someone/tiny")
    assert_weights_are(model, before)


def test_names_of_public_weights():
    with pytest.raises(WeightsError, match="no checkpoint known for resnet18; pass one of imagenet, a1_in1k,"):
        kzoo.build("resnet18", weights="imagnet1k_v2")
    with pytest.raises(WeightsError, match="did you mean 'imagenet'"):
        kzoo.build("resnet18", weights="imagnet")
    with pytest.raises(WeightsError, match="no checkpoint known for plain18; pass 'hf://owner/name'"):
        kzoo.build("plain18", weights="imagenet")
