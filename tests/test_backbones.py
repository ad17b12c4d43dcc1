"""U-Net and feature pyramid on every kind of backbone: the whole path, on maps of odd sizes."""

import pytest
from helpers import kinds, slow_but

import kzoo
from kzoo.check import NarrowModel, checks
from kzoo.registry import CLASSIFICATION, lookup
from kzoo.surgery import plan_folding

# Convolutions alone, and attention with taps in front of a normalisation
QUICK = [("unet", "vgg11_bn"), ("fpn", "resnet50_v2_cbam")]
SHORTER = {"resnet50_v2_cbam": dict(depths=(1, 1, 1, 1))}


def pairs() -> list[tuple[str, str]]:
    """Both networks with a name of each kind of narrow classifier."""
    preferred = [backbone for _, backbone in QUICK]
    names = [name for name in kzoo.list_models() if lookup(name).task == CLASSIFICATION]
    backbones = kinds(sorted(names, key=lambda name: name not in preferred))
    return [(network, backbone) for network in ("unet", "fpn") for backbone in backbones]


def options_of(backbone: str) -> dict:
    """The overrides that make a backbone narrow."""
    return dict(lookup(backbone).narrow) | SHORTER.get(backbone, {})


def narrow_with(network: str, backbone: str, directory) -> NarrowModel:
    """The narrow network, on images of a size that no stride divides."""
    entry = lookup(backbone)
    options = dict(backbone=backbone, backbone_options=options_of(backbone))
    options |= dict(channels=16, head_width=12) if network == "fpn" else {}
    size = (entry.narrow_size + 11, entry.narrow_size + 6)
    return NarrowModel(network, directory, options=options, size=size)


@pytest.mark.parametrize(("network", "backbone"), slow_but(QUICK, pairs()))
def test_saves_and_folds_and_exports(network, backbone, tmp_path):
    narrow = narrow_with(network, backbone, tmp_path)
    size = narrow.size
    assert narrow.model.output.shape[1:3] == size
    checks.builds(narrow)
    checks.saves(narrow)
    checks.folds(narrow)
    alone = kzoo.build(backbone, input_shape=(*size, 3), include_top=False, **options_of(backbone))
    assert set(plan_folding(narrow.model).kept) == set(plan_folding(alone).kept)  # the decoder's all fold
    checks.exports(narrow)
    checks.gradients(narrow)


@pytest.mark.slow  # XLA compiles them for long; each layer by itself and a U-Net learn under it by default
@pytest.mark.parametrize(("network", "backbone"), pairs())
def test_learns_under_xla(network, backbone, tmp_path, compiling):
    compiling(learns, network, backbone, tmp_path)


def learns(network: str, backbone: str, directory) -> None:
    checks.learns(narrow_with(network, backbone, directory))
