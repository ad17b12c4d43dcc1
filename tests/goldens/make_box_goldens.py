"""Writes boxes.npz: torchvision's assignment, losses and post-processing on the scenes of scenes.py.

torchvision's compiled operators are not needed: of those that it wants to see, `nms` is written here.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from scenes import CLASSES, SIZES, STRIDES, batches, outputs

LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision.models.detection import FCOS, RetinaNet  # noqa: E402
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder, Matcher  # noqa: E402
from torchvision.models.detection.anchor_utils import AnchorGenerator  # noqa: E402
from torchvision.models.detection.fcos import FCOSHead  # noqa: E402
from torchvision.models.detection.image_list import ImageList  # noqa: E402
from torchvision.models.detection.retinanet import RetinaNetHead, _default_anchorgen  # noqa: E402
from torchvision.ops import box_iou, boxes  # noqa: E402

NAMES = {"logits": "cls_logits", "offsets": "bbox_regression", "centerness": "bbox_ctrness"}
LIMITS = {  # score, candidates of a level, overlap, detections: torchvision's, and some of which each cuts something
    "fcos": ((0.2, 1000, 0.6, 100), (0.2, 40, 0.6, 15), (0.7, 1000, 0.3, 100)),
    "retinanet": ((0.05, 1000, 0.5, 300), (0.05, 60, 0.5, 30), (0.8, 1000, 0.3, 300)),
}
PROCESSED = 2  # batches, of the first two images of which detections are made


def nms(dets, scores, iou_threshold):
    """Greedy, the best first; two boxes without area, whose overlap is NaN, do not touch, as in the compiled one."""
    order, kept = scores.argsort(descending=True, stable=True), []
    while len(order):
        kept.append(order[0])
        order = order[1:][~(box_iou(dets[order[:1]], dets[order[1:]])[0] > iou_threshold)]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.int64)


LIBRARY.impl("nms", nms, "CPU")
boxes._assert_has_ops = lambda: None  # there is what it asks for


def maps(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Heights and widths of the levels of an image that is padded to multiples of 32."""
    return [tuple(-(-(-(-side // 32) * 32) // stride) for side in size) for stride in STRIDES]


def anchors_of(name: str, size: tuple[int, int]) -> tuple[torch.Tensor, list[int]]:
    """Anchors (places, 4), and how many places each level has."""
    generator = _default_anchorgen()
    if name == "fcos":
        generator = AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES))
    padded = [-(-side // 32) * 32 for side in size]
    features = [torch.zeros(1, 1, *grid) for grid in maps(size)]
    anchors = generator(ImageList(torch.zeros(1, 3, *padded), [tuple(size)]), features)[0]
    each = generator.num_anchors_per_location()
    return anchors, [height * width * count for (height, width), count in zip(maps(size), each, strict=True)]


def detector(name: str, box_loss: str = "giou") -> SimpleNamespace:
    """What torchvision's methods look for in a model, with the matches of the last loss."""
    model = SimpleNamespace(matches=None, BETWEEN_THRESHOLDS=Matcher.BETWEEN_THRESHOLDS)
    if name == "fcos":
        model.center_sampling_radius, model.box_coder = 1.5, BoxLinearCoder(normalize_by_size=True)
        model.head = FCOSHead(32, 1, CLASSES)
    else:
        model.proposal_matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
        model.box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        model.head = RetinaNetHead(32, 9, CLASSES)
        model.head.regression_head._loss_type = box_loss
    compute = model.head.compute_loss

    def keep(targets, head_outputs, anchors, matches):
        model.matches = torch.stack(matches)
        return compute(targets, head_outputs, anchors, matches)

    model.head.compute_loss = keep
    return model


def renamed(raw: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {NAMES[name]: torch.from_numpy(array) for name, array in raw.items()}


def losses(name: str, box_loss: str = "giou", low_quality: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Parts of the loss of every batch, and the box of every place of it, one behind the other."""
    parts, matches = [], []
    model = detector(name, box_loss)
    if name == "retinanet":
        model.proposal_matcher.allow_low_quality_matches = low_quality
    for number, batch in enumerate(batches()):
        anchors, counts = anchors_of(name, batch.size)
        truth = [
            {"boxes": torch.from_numpy(boxes[known >= 0]), "labels": torch.from_numpy(known[known >= 0]).long()}
            for boxes, known in zip(batch.boxes, batch.classes, strict=True)
        ]
        raw = renamed(outputs(name, number, len(truth), len(anchors)))
        more = (counts,) if name == "fcos" else ()
        kind = FCOS if name == "fcos" else RetinaNet
        found = kind.compute_loss(model, truth, raw, [anchors] * len(truth), *more)
        parts.append([float(value) for value in found.values()])
        matches.append(model.matches.numpy().astype("int8").ravel())
    return np.float32(parts), np.concatenate(matches)


def detections(name: str, limits: tuple) -> dict[str, np.ndarray]:
    """Boxes in pixels, scores and classes after suppression of the first batches, one image behind the other."""
    model = detector(name)
    model.score_thresh, model.topk_candidates, model.nms_thresh, model.detections_per_img = limits
    found = []
    for number, batch in zip(range(PROCESSED), batches(), strict=False):
        anchors, counts = anchors_of(name, batch.size)
        raw = renamed(outputs(name, number, len(batch.boxes), len(anchors)))
        split = {key: list(value.split(counts, dim=1)) for key, value in raw.items()}
        kind = FCOS if name == "fcos" else RetinaNet
        found += kind.postprocess_detections(model, split, [list(anchors.split(counts))] * 2, [batch.size] * 2)
    return {
        "count": np.int32([len(one["scores"]) for one in found]),
        **{key: torch.cat([one[key] for one in found]).numpy() for key in ("boxes", "scores")},
        "classes": torch.cat([one["labels"] for one in found]).numpy().astype("int8"),
    }


@torch.no_grad()
def main() -> None:
    goldens = {}
    for name in ("fcos", "retinanet"):
        for number, size in enumerate(SIZES):
            anchors, counts = anchors_of(name, size)
            goldens[f"{name}_anchors_{number}"] = anchors.numpy()
            goldens[f"{name}_levels_{number}"] = np.repeat(np.arange(len(counts)), counts).astype("int8")
        for number, limits in enumerate(LIMITS[name]):
            found = detections(name, limits)
            goldens |= {f"{name}_{key}_{number}": array for key, array in found.items()}
            goldens[f"{name}_limits_{number}"] = np.float64(limits)
    goldens["fcos_losses"], goldens["fcos_matches"] = losses("fcos")
    goldens["retinanet_l1_losses"], goldens["retinanet_matches"] = losses("retinanet", "l1")
    goldens["retinanet_giou_losses"], _ = losses("retinanet", "giou")
    goldens["strict_losses"], goldens["strict_matches"] = losses("retinanet", "l1", low_quality=False)
    for name, array in goldens.items():
        print(name, array.dtype, array.shape, array.min() if array.size else "", array.max() if array.size else "")
    np.savez_compressed(Path(__file__).with_name("boxes.npz"), **goldens)


if __name__ == "__main__":
    main()
