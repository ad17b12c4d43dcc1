"""U-Net and feature pyramid on every kind of backbone: the whole path, on maps of odd sizes."""

import dataclasses

import pytest

import kzoo
from kzoo.check import Subject, checks
from kzoo.registry import CLASSIFICATION, lookup
from kzoo.surgery import plan_folding

QUICK = {
    "unet": ("cifar_resnet20", "googlenet", "nat_mini", "simple_cnn"),
    "fpn": ("inception_v3", "resnet50_v2_cbam", "swin_tiny", "vgg11_bn"),
}


def combinations() -> list:
    """Both networks with a name of each kind of narrow classifier; one network for all but one family is quick."""
    preferred = [name for names in QUICK.values() for name in names]
    kinds = {}
    for name in sorted(kzoo.list_models(), key=lambda name: name not in preferred):
        entry = lookup(name)
        if entry.task == CLASSIFICATION:
            kinds.setdefault(repr(dataclasses.replace(entry.config, **entry.narrow)), name)
    return [
        pytest.param(network, name, marks=[] if name in quick else [pytest.mark.slow])
        for network, quick in QUICK.items()
        for name in kinds.values()
    ]


@pytest.mark.parametrize(("network", "backbone"), combinations())
def test_the_whole_path(network, backbone, tmp_path):
    entry = lookup(backbone)
    options = dict(backbone=backbone, backbone_options=entry.narrow)
    options |= dict(channels=16, head_width=12) if network == "fpn" else {}
    size = (entry.narrow_size + 11, entry.narrow_size + 6)
    subject = Subject(network, tmp_path, options=options, size=size)
    assert subject.model.output.shape[1:3] == size
    checks.builds(subject)
    checks.saves(subject)
    checks.folds(subject)
    alone = kzoo.build(backbone, input_shape=(*size, 3), include_top=False, **entry.narrow)
    assert set(plan_folding(subject.model).kept) == set(plan_folding(alone).kept)  # the decoder's all fold
    checks.exports(subject)
    checks.gradients(subject)
    checks.learns(subject)


def test_every_family_is_among_the_quick():
    families = {lookup(name).family for name in kzoo.list_models() if lookup(name).task == CLASSIFICATION}
    quick = {lookup(name).family for names in QUICK.values() for name in names}
    assert quick == families - {"residual_attention"}  # is slow to compile
