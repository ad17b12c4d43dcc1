"""Writes detection.npz: what torchvision's RetinaNet and FCOS compute with seeded weights, up to suppressed boxes.

The narrow ones stand on a ResNet-18 with 64 channels in pyramid and heads; the full ones are torchvision's three
builders. Stored are every few places of the heads' outputs and of the decoded boxes, all boxes, labels and scores that
torchvision's own post-processing leaves, and the names and shapes of the state dicts.
"""

from pathlib import Path

import numpy as np
import torch
from make_timm_goldens import with_seeded_weights  # makes torchvision importable, too
from seeded import seeded_pictures

_library = torch.library.Library("torchvision", "DEF")  # the operators of a wheel for another torch do not load
for _name in ("nms", "qnms"):
    _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def suppress(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Non-maximum suppression: the best box first, and none that overlaps a better one too much."""
    order, kept = scores.argsort(descending=True, stable=True), []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        sides = torch.minimum(boxes[rest, 2:], boxes[best, 2:]) - torch.maximum(boxes[rest, :2], boxes[best, :2])
        common = sides.clamp(min=0).prod(dim=1)
        overlaps = common / (areas[rest] + areas[best] - common)
        order = rest[~(overlaps > threshold)]  # as the compiled operator: of two boxes without area none goes
    return torch.tensor(kept, dtype=torch.int64)


_library.impl("nms", suppress, "CPU")

import torchvision  # noqa: E402

torchvision.extension._HAS_OPS = True
torchvision.extension._has_ops = lambda: True  # what is asked before nms

from torchvision.models import resnet18  # noqa: E402
from torchvision.models.detection import (  # noqa: E402
    FCOS,
    RetinaNet,
    fcos_resnet50_fpn,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import BackboneWithFPN  # noqa: E402
from torchvision.models.detection.retinanet import RetinaNetHead, _default_anchorgen  # noqa: E402
from torchvision.ops.boxes import clip_boxes_to_image  # noqa: E402
from torchvision.ops.feature_pyramid_network import LastLevelP6P7  # noqa: E402

SIZES = {"even": (96, 128), "odd": (75, 101)}
CLASSES, WIDTH = 5, 64
EVERY = {"narrow": 7, "full": 61}  # places


def narrow_backbone(from_c5: bool) -> BackboneWithFPN:
    """A ResNet-18 under a pyramid of 64 channels."""
    body = resnet18(weights=None)
    extra = LastLevelP6P7(512 if from_c5 else WIDTH, WIDTH)
    return BackboneWithFPN(body, {"layer2": "0", "layer3": "1", "layer4": "2"}, [128, 256, 512], WIDTH, extra)


def narrow(name: str, **sizes) -> torch.nn.Module:
    backbone = narrow_backbone(name == "retinanet_v2")
    if name == "fcos":
        return FCOS(backbone, CLASSES, **sizes)
    anchors = _default_anchorgen()
    norm = {"retinanet": None, "retinanet_v2": lambda channels: torch.nn.GroupNorm(32, channels)}[name]
    head = RetinaNetHead(WIDTH, 9, CLASSES, norm_layer=norm)
    return RetinaNet(backbone, CLASSES, anchor_generator=anchors, head=head, **sizes)


FULL = {"fcos": fcos_resnet50_fpn, "retinanet": retinanet_resnet50_fpn, "retinanet_v2": retinanet_resnet50_fpn_v2}


def full(name: str, **sizes) -> torch.nn.Module:
    return FULL[name](weights=None, weights_backbone=None, **sizes)


@torch.no_grad()
def goldens_of(model: torch.nn.Module, images: np.ndarray, every: int) -> dict[str, np.ndarray]:
    """Outputs of the heads, decoded boxes, and what is left behind the suppression."""
    seen = {}
    model.head.register_forward_hook(lambda _, inputs, outputs: seen.update(outputs))
    model.anchor_generator.register_forward_hook(lambda _, inputs, outputs: seen.update(anchors=outputs))
    found = model([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images])
    size = images.shape[1:3]
    if isinstance(model, FCOS):
        boxes = model.box_coder.decode(seen["bbox_regression"], torch.stack(seen["anchors"]))
    else:
        pairs = zip(seen["bbox_regression"], seen["anchors"], strict=True)
        boxes = torch.stack([model.box_coder.decode_single(offsets, anchors) for offsets, anchors in pairs])
    goldens = {
        "logits": seen["cls_logits"][:, ::every],
        "offsets": seen["bbox_regression"][:, ::every],
        "decoded": clip_boxes_to_image(boxes, size)[:, ::every],
        "anchors": seen["anchors"][0][::every],
    }
    if isinstance(model, FCOS):
        goldens["centerness"] = seen["bbox_ctrness"][:, ::every]
    for number, detections in enumerate(found):
        goldens |= {f"{key}{number}": detections[key] for key in ("boxes", "scores", "labels")}
    return {key: tensor.numpy() for key, tensor in goldens.items()}


def main() -> None:
    goldens = {}
    for kind, build in (("narrow", narrow), ("full", full)):
        for name in FULL:
            for size, sides in SIZES.items():
                model = with_seeded_weights(build(name, min_size=min(sides), max_size=max(sides)))
                outputs = goldens_of(model, seeded_pictures(*sides), EVERY[kind])
                goldens |= {f"{kind}_{name}_{size}_{key}": array for key, array in outputs.items()}
            state = model.state_dict()
            goldens[f"{kind}_{name}_state"] = [f"{key} {' '.join(map(str, t.shape))}" for key, t in state.items()]
    np.savez_compressed(Path(__file__).with_name("detection.npz"), **goldens)
    for name, array in goldens.items():
        array = np.asarray(array)
        print(name, array.shape, "" if array.dtype.kind == "U" else f"{array.min():.4g} to {array.max():.4g}")


if __name__ == "__main__":
    main()
