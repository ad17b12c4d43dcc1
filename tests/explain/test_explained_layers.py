"""Which feature map is explained, for each family of the zoo: a new family has to say its own here."""

import re

import pytest
from helpers import kinds, slow_but

import kzoo
from kzoo.explain import Box, explained_layer
from kzoo.registry import DETECTION, lookup

EXPLAINED = {
    "airbench": r"stage\d_gelu2",  # what the last, global pooling reads
    "fcos": "fpn_p3",  # the map of the pyramid on which the box stands, in front of the heads
    "fpn": "head_sum",  # the sum of all levels; of one level the classes of other sizes would be missing
    "googlenet": "inception5[ab]_(concat|attention)",  # all branches, never one of them
    "inception_v3": "mixed7[a-c]_(concat|attention)",
    "nat": "final_norm",  # never the norm1 of a block, which localises the background
    "residual_attention": "final_relu",  # behind the trunk and its soft masks
    "resnet": r"stage\d_block\d_relu[23]|final_relu",  # the block's sum, with its shortcut; v2 ends in a norm
    "retinanet": "fpn_p3",
    "simple_cnn": "pool2",  # what is flattened
    "swin": "final_norm",
    "unet": "unet_p0_relu2",  # the finest map of the decoder
    "vgg": "stage5_pool",  # what is flattened
}
KINDS = kinds(kzoo.list_models())
FIRST = {lookup(name).family: name for name in reversed(KINDS)}


def test_every_family_says_its_layer():
    assert set(EXPLAINED) == {lookup(name).family for name in kzoo.list_models()}


@pytest.mark.parametrize("name", slow_but(FIRST.values(), KINDS))
def test_the_layer_of_each_kind_of_model(name):
    entry = lookup(name)
    size = (entry.narrow_size, entry.narrow_size, 3)
    target = Box(0, 0) if entry.task == DETECTION else None  # the first place is one of the finest map
    found = explained_layer(kzoo.build(name, input_shape=size, **entry.narrow), target)
    assert re.fullmatch(EXPLAINED[entry.family], found), found
