"""The registry: names, patterns, suggestions, no name twice, frozen configs."""

import dataclasses

import numpy as np
import pytest

import kzoo
from kzoo.errors import KzooError, UnknownNameError
from kzoo.registry import configure, lookup, register

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


def from_numpy(value):
    """The value as NumPy would give it: np.int64, np.float64, np.bool_, in tuples too."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(from_numpy, value))
    return np.asarray(value)[()] if isinstance(value, (bool, int, float)) else value


def plain_types(value):
    return [plain_types(each) for each in value] if isinstance(value, (tuple, list)) else type(value)


BY_FAMILY = {lookup(name).family: name for name in reversed(kzoo.list_models())}


@pytest.mark.parametrize("family", sorted(BY_FAMILY))
def test_every_option_of_every_family_takes_numpys_numbers_as_pythons(family):
    entry = lookup(BY_FAMILY[family])
    config = configure(entry, entry.narrow)
    options = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    given = {name: from_numpy(value) for name, value in options.items()}
    assert any(isinstance(value, np.generic) or "numpy" in str(plain_types(value)) for value in given.values())
    ours = configure(entry, given)
    assert ours == config
    for name in given:
        assert plain_types(getattr(ours, name)) == plain_types(options[name])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vgg11", dict(depths=[1, 1], widths=[4, 8], head="average", dropout=0.25)),
        ("simple_cnn", dict(widths=[4, 8], dense_units=8, kernel_size=3)),
        ("swin_tiny", dict(depths=[1, 1], num_heads=[1, 2], width=8, window_size=[4, 4])),
        ("unet", dict(widths=[4, 8], padding="same", batch_norm=True)),
        ("unet", dict(backbone="resnet18", backbone_options=dict(depths=[1, 1], widths=[4, 8]))),
    ],
)
def test_models_of_numpys_numbers_are_those_of_pythons_and_can_be_saved(name, options, tmp_path):
    def build(change):
        changed = {
            key: {k: change(v) for k, v in value.items()} if isinstance(value, dict) else change(value)
            for key, value in options.items()
        }
        return kzoo.build(name, input_shape=(32, 32, 3), num_classes=change(3), **changed)

    model = build(from_numpy)
    model.save(tmp_path / "model.keras")
    assert [weight.shape for weight in model.weights] == [weight.shape for weight in build(lambda v: v).weights]


def test_numpys_numbers_out_of_range_are_refused_by_the_same_words():
    for widths in ((4, np.int64(0)), (4, np.float64(8.0)), (4, np.bool_(True))):
        with pytest.raises(KzooError, match="must be a tuple of positive integers"):
            configure(lookup("vgg11"), dict(depths=(1, 1), widths=widths))
