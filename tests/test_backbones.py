"""U-Net and feature pyramid on every kind of backbone: the whole path, on maps of odd sizes."""

import pytest
from helpers import kinds, slow_but

import kzoo
from kzoo.check import Subject, checks
from kzoo.registry import CLASSIFICATION, lookup
from kzoo.surgery import plan_folding

# Convolutions alone, attention, taps in front of a normalisation
QUICK = [("fpn", "vgg11_bn"), ("unet", "nat_mini"), ("fpn", "resnet50_v2_cbam")]
QUICK_TO_LEARN = [("fpn", "vgg11_bn")]


def pairs() -> list[tuple[str, str]]:
    """Both networks with a name of each kind of narrow classifier."""
    preferred = [backbone for _, backbone in QUICK]
    names = [name for name in kzoo.list_models() if lookup(name).task == CLASSIFICATION]
    backbones = kinds(sorted(names, key=lambda name: name not in preferred))
    return [(network, backbone) for network in ("unet", "fpn") for backbone in backbones]


def subject_of(network: str, backbone: str, directory) -> Subject:
    """The narrow network, on images of a size that no stride divides."""
    entry = lookup(backbone)
    options = dict(backbone=backbone, backbone_options=entry.narrow)
    options |= dict(channels=16, head_width=12) if network == "fpn" else {}
    size = (entry.narrow_size + 11, entry.narrow_size + 6)
    return Subject(network, directory, options=options, size=size)


@pytest.mark.parametrize(("network", "backbone"), slow_but(QUICK, pairs()))
def test_saves_and_folds_and_exports(network, backbone, tmp_path):
    entry, subject = lookup(backbone), subject_of(network, backbone, tmp_path)
    size = subject.size
    assert subject.model.output.shape[1:3] == size
    checks.builds(subject)
    checks.saves(subject)
    checks.folds(subject)
    alone = kzoo.build(backbone, input_shape=(*size, 3), include_top=False, **entry.narrow)
    assert set(plan_folding(subject.model).kept) == set(plan_folding(alone).kept)  # the decoder's all fold
    checks.exports(subject)
    checks.gradients(subject)


@pytest.mark.parametrize(("network", "backbone"), slow_but(QUICK_TO_LEARN, pairs()))
def test_learns_under_xla(network, backbone, tmp_path, compiling):
    compiling(learns, network, backbone, tmp_path)


def learns(network: str, backbone: str, directory) -> None:
    checks.learns(subject_of(network, backbone, directory))
