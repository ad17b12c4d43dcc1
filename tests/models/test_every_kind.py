"""What holds for every kind of model, by the names of its layers: their depths, and which weights decay."""

import functools
import re

import keras
import pytest
from helpers import kinds, slow_but

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.graph import read_graph
from kzoo.models.depths import depth_of_layers
from kzoo.registry import lookup
from kzoo.train.decay import without_decay

pytestmark = pytest.mark.usefixtures("without_values")

KINDS = kinds(kzoo.list_models())
COMPOSITES = {
    "fcos on swin_tiny": (
        "fcos",
        lookup("fcos").narrow | dict(backbone="swin_tiny", backbone_options=lookup("swin_tiny").narrow),
    ),
    "unet on swin_tiny": ("unet", dict(backbone="swin_tiny", backbone_options=lookup("swin_tiny").narrow)),
    "fpn on nat_mini": ("fpn", dict(backbone="nat_mini", backbone_options=lookup("nat_mini").narrow)),
    "fpn on resnet50_v2_cbam": (
        "fpn",
        dict(backbone="resnet50_v2_cbam", backbone_options=lookup("resnet50_v2_cbam").narrow),
    ),
    "image pyramid": ("fpn", dict(design="image_pyramid", **lookup("fpn").narrow)),
    "inception with auxiliary heads": (
        "googlenet_bn",
        dict(auxiliary=True, input_shape=(96, 96, 3), **lookup("googlenet_bn").narrow),
    ),
}
DEPTHS = {
    "resnet50_nl5": dict(
        stem_conv=0,
        stage1_block1_conv1=1,
        stage2_block1_shortcut_conv=2,
        stage2_attention1=2,
        stage2_attention2=4,
        stage2_block4_bn3=5,
        stage4_block1_bn3=12,
        head_dense=13,
    ),
    "resnet50_v2_se": dict(stem_conv=0, stage1_block2_attention=2, stage4_block1_conv3=5, final_bn=5, head_dense=6),
    "vgg11_bn_cbam": dict(stage1_conv1=0, stage2_bn2=1, stage2_attention2=1, stage5_conv1=4, head_fc1=5, head_dense=5),
    "googlenet": dict(stem_conv3=0, inception3a_branch4_conv=1, inception5a_branch1_conv=4, head_dense=5),
    "inception_v3": dict(stem_bn5=0, mixed5b_branch1x1_conv=1, mixed7b_branch3x3_conv2a=5, head_dense=6),
    "residual_attention56": dict(stem_conv=0, stage1_unit1_conv1=1, stage1_module1_mask=2, final_bn=7, head_dense=8),
    "swin_tiny": dict(stem_norm=0, stage1_block2_mlp_dense1=2, stage2_downsample_dense=2, final_norm=5, head_dense=6),
    "simple_cnn": dict(conv1=0, conv2=1, head_fc1=2, head_dense=2),
    "unet_padded_se": dict(stage1_attention=0, stage3_conv2=2, unet_p0_conv1=3, head_conv=3),
    "unet on swin_tiny": dict(stem_conv=0, stage4_block1_norm1=5, stage1_tap_norm=6, unet_p4_conv1=6, head_conv=6),
}

DEFAULT = [*DEPTHS, "nat_base", "fpn on resnet50_v2_cbam", "inception with auxiliary heads"]
SUBJECTS = slow_but(DEFAULT, list(dict.fromkeys([*KINDS, *DEFAULT, *COMPOSITES])))


@functools.cache
def build(subject: str) -> keras.Model:
    if subject in COMPOSITES:
        name, options = COMPOSITES[subject]
        return kzoo.build(name, **dict(input_shape=(97, 103, 3)) | options)
    entry = lookup(subject)
    return kzoo.build(subject, input_shape=(entry.narrow_size, entry.narrow_size, 3), **entry.narrow)


# A weight that decay must spare, by the end of its path: what it is
SPARED = {
    "bias": "bias",
    "beta": "offset of a normalisation",
    "gamma": "scale of a normalisation",
    "scale": "layer scale",
    "table": "relative position biases of windows",
    "position_bias": "relative position biases of neighbourhoods",
    "row_embedding": "positions of stand-alone attention",
    "column_embedding": "positions of stand-alone attention",
    "mixtures": "mixture of the attention stem",
    "mixture_rows": "positions of the attention stem",
    "mixture_columns": "positions of the attention stem",
}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_kernels_alone_decay_and_depths_follow_the_graph(subject):
    model = build(subject)
    spared = {variable.path for variable in without_decay(model)}
    names = {path.rpartition("/")[2] for path in spared}
    assert names <= SPARED.keys()
    assert {v.path.rpartition("/")[2] for v in model.trainable_variables if v.path not in spared} == {"kernel"}
    check_depths(model)


def check_depths(model: keras.Model) -> None:
    depths = depth_of_layers(model)
    assert set(depths) == {layer.name for layer in model.layers if layer.weights}
    assert sorted(set(depths.values())) == list(range(max(depths.values()) + 1))  # none is left out
    learning = {name for name in depths if re.match(r"(unet|fpn|head|auxiliary\d)_|.*_tap_norm", name)}
    assert {name for name, depth in depths.items() if depth == max(depths.values())} == learning
    # along the graph no weight is less deep than any before it
    deepest: dict[str, int] = {}
    for name, calls in read_graph(model).calls.items():
        sources = [source for call in calls for source, _, _ in call.sources]
        if "SideOutput" in type(next((each for each in model.layers if each.name == name), None)).__name__:
            sources = sources[:1]  # it passes on the trunk alone
        before = max((deepest.get(source, 0) for source in sources), default=0)
        assert depths.get(name, before) >= before, name
        deepest[name] = depths.get(name, before)


@pytest.mark.parametrize("subject", DEPTHS)
def test_depths_count_the_stem_the_blocks_and_the_head(subject):
    depths = depth_of_layers(build(subject))
    assert {name: depths[name] for name in DEPTHS[subject]} == DEPTHS[subject]


def test_depths_survive_a_new_head_and_need_a_model_of_the_zoo():
    model = build("resnet50_v2_se")
    assert depth_of_layers(kzoo.replace_head(model, 3)) == depth_of_layers(model)
    with pytest.raises(InvalidValueError, match="own has no taps, so it is no model of the zoo"):
        depth_of_layers(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="own"))
