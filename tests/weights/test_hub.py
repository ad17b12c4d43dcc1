"""Checkpoints of the hub, without a network."""

from dataclasses import replace

import pytest
from helpers import assert_weights_are, weights_of
from weights.torch_files import assert_layer_is, random_state, save, tiny

import kzoo
from kzoo.errors import WeightsError
from kzoo.registry import lookup

FETCH = ("kzoo.weights.load.fetch_hub", "kzoo.weights.specs.fetch_hub")  # of load_weights and of build


def test_hub(monkeypatch, tmp_path):
    asked, state = [], random_state()
    path = save(state, tmp_path / "model.safetensors")
    for place in FETCH:
        monkeypatch.setattr(place, lambda repository: asked.append(repository) or path)
    model = tiny()
    assert kzoo.load_weights(model, "hf://someone/tiny").source == "hf://someone/tiny"
    assert_layer_is(model, "stem_conv", state, "conv1")
    with pytest.raises(WeightsError, match="does not fit resnet18"):
        kzoo.build("resnet18", weights="imagenet")
    with pytest.raises(WeightsError, match="does not fit resnet18"):
        kzoo.build("resnet18", weights="tv_in1k")
    assert asked == ["someone/tiny", "timm/resnet18.a1_in1k", "timm/resnet18.tv_in1k"]


def test_hub_out_of_reach(monkeypatch):
    def fetch(repository):
        raise WeightsError(f"could not fetch {repository}")

    for place in FETCH:
        monkeypatch.setattr(place, fetch)
    model = tiny()
    before = weights_of(model)
    with pytest.raises(WeightsError, match="could not fetch someone/tiny"):
        kzoo.load_weights(model, "hf://someone/tiny")
    assert_weights_are(model, before)
    monkeypatch.setattr("kzoo.zoo.lookup", lambda name: replace(lookup(name), features=None))  # fails once it builds
    with pytest.raises(WeightsError, match="could not fetch timm/swin_large"):
        kzoo.build("swin_large", weights="imagenet")


def test_names_of_public_weights():
    with pytest.raises(WeightsError, match="no checkpoint known for resnet18; pass one of imagenet, a1_in1k,"):
        kzoo.build("resnet18", weights="imagnet1k_v2")
    with pytest.raises(WeightsError, match="did you mean 'imagenet'"):
        kzoo.build("resnet18", weights="imagnet")
    with pytest.raises(
        WeightsError, match="no checkpoint known for plain18, which has no public weights; pass 'hf://owner/name'"
    ):
        kzoo.build("plain18", weights="imagenet")
