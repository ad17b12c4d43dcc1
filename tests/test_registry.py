"""The registry: names, patterns, suggestions, no name twice, frozen configs."""

import dataclasses

import pytest

import kzoo
from kzoo.errors import KzooError, UnknownNameError
from kzoo.registry import lookup, register

BASES = [
    *(f"resnet{n}" for n in (18, 34, 50, 101, 152)),
    *(f"resnet{n}_{v}" for n in (50, 101, 152) for v in ("v1", "v2")),
    *(f"cifar_resnet{n}" for n in (20, 32, 44, 56, 110)),
    *("plain18", "plain34", "cifar_plain20", "cifar_plain56"),
]


def test_every_name_with_and_without_attention():
    expected = {base + attention for base in BASES for attention in ("", "_se", "_cbam")}
    expected |= {f"resnet{n}_{kind}" for n in (50, 101) for kind in ("nl", "nl5")}
    expected |= {f"resnet{n}_{kind}" for n in (26, 38, 50) for kind in ("sasa", "sasa_full")}
    assert [name for name in kzoo.list_models() if lookup(name).family == "resnet"] == sorted(expected)


def test_patterns():
    assert kzoo.list_models("resnet50*_cbam") == ["resnet50_cbam", "resnet50_v1_cbam", "resnet50_v2_cbam"]
    assert kzoo.list_models("plain18") == ["plain18"]
    assert kzoo.list_models("nosuch*") == []


def test_attention_is_data():
    for base in BASES:
        for attention in ("se", "cbam"):
            expected = dataclasses.replace(lookup(base).config, attention=attention)
            assert lookup(f"{base}_{attention}").config == expected


@pytest.mark.quick
def test_unknown_names():
    with pytest.raises(UnknownNameError, match="unknown model 'resnet50_cbm'; did you mean 'resnet50_cbam'"):
        lookup("resnet50_cbm")
    with pytest.raises(KeyError, match=r"^unknown model 'zzz'; kzoo\.list_models\(\) shows all$"):
        lookup("zzz")
    with pytest.raises(KzooError, match="unknown model 'RESNET50'"):  # names are exact
        lookup("RESNET50")
    for name in (None, 50, ""):
        with pytest.raises(UnknownNameError, match="unknown model"):
            lookup(name)


@pytest.mark.quick
def test_no_name_twice():
    before = lookup("resnet50")
    with pytest.raises(ValueError, match="model 'resnet50' is registered twice"):
        register(dataclasses.replace(before, family="another"))
    assert lookup("resnet50") is before


def test_entries_and_configs_are_frozen():
    entry = lookup("resnet50")
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.config.depths = (1,)
