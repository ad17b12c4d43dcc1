"""Names of torchvision's RetinaNet and FCOS on a ResNet, the first of each those that version 0.13 and later write."""

import re

import keras

from kzoo.weights.torch_rules import resnet

_HEADS = {"class": "head.classification_head", "box": "head.regression_head"}
_LAST = {
    "head_class_logits": "head.classification_head.cls_logits",
    "head_box_offsets": "head.regression_head.bbox_reg",
    "head_box_centerness": "head.regression_head.bbox_ctrness",
}
_TOWER = re.compile(r"head_(class|box)_(conv|norm)(\d+)")
_PYRAMID = re.compile(r"fpn_p(\d+)_(lateral|smooth)")
_EXTRA = re.compile(r"fpn_p(\d+)_conv")


def layer_names(layer: str, model: keras.Model) -> tuple[str, ...]:
    """Names of a layer of the zoo, the newest first; empty where it is not known, and of models without such heads."""
    if not any(each.name in _LAST for each in model.layers):
        return ()
    if layer in _LAST:
        return (_LAST[layer],)
    if match := _TOWER.fullmatch(layer):
        return _in_tower(_HEADS[match[1]], match[2], int(match[3]) - 1)
    if match := _PYRAMID.fullmatch(layer):
        blocks = {"lateral": "inner", "smooth": "layer"}[match[2]]
        name = f"backbone.fpn.{blocks}_blocks.{int(match[1]) - _finest(model)}"
        return f"{name}.0", name
    if match := _EXTRA.fullmatch(layer):
        return (f"backbone.fpn.extra_blocks.p{match[1]}",)
    return tuple(f"backbone.body.{name}" for name in resnet.layer_names(layer, model))


def _in_tower(head: str, kind: str, index: int) -> tuple[str, ...]:
    """Blocks of RetinaNet; FCOS has convolution, normalisation and ReLU in a row, the first RetinaNet without norm."""
    if kind == "norm":
        return f"{head}.conv.{index}.1", f"{head}.conv.{3 * index + 1}"
    return f"{head}.conv.{index}.0", f"{head}.conv.{3 * index}", f"{head}.conv.{2 * index}"


def _finest(model: keras.Model) -> int:
    """The level of the pyramid's finest map."""
    names = (layer.name for layer in model.layers)
    return min(int(match[1]) for name in names if (match := _PYRAMID.fullmatch(name)))
