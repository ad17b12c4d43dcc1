"""What detection computes, one box and one place at a time, written from the papers' equations."""

import math

import numpy as np


def box_area(box) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def box_overlap(one, other, generalized: bool = False) -> float:
    """Intersection over union, or GIoU (arXiv:1902.09630, algorithm 1)."""
    shared = box_area([*np.maximum(one[:2], other[:2]), *np.minimum(one[2:], other[2:])])
    both = box_area(one) + box_area(other) - shared
    if not generalized:
        return shared / both if both else 0.0
    whole = box_area([*np.minimum(one[:2], other[:2]), *np.maximum(one[2:], other[2:])])
    return shared / both - (whole - both) / whole


def match_loop(boxes, anchors, foreground=0.5, background=0.4, low_quality=True) -> list[int]:
    """RetinaNet's box of each anchor: -1 for none, -2 to be left out."""
    table = [[box_overlap(box, anchor) for anchor in anchors] for box in boxes]
    matches = []
    for place in range(len(anchors)):
        shares = [row[place] for row in table]
        best = max(shares, default=0.0)
        found = shares.index(best) if shares else -1
        pairs = zip(shares, map(max, table), strict=True)
        most = any(low_quality and share > 0 and math.isclose(share, high, rel_tol=1e-6) for share, high in pairs)
        matches.append(found if shares and (best >= foreground or most) else -2 if best >= background else -1)
    return matches


def sample_loop(boxes, points, strides, levels, radius=1.5) -> list[int]:
    """FCOS' box of each point, -1 for none."""
    matches = []
    for (x, y), stride, level in zip(points, strides, levels, strict=True):
        low = 0 if level == min(levels) else 4 * stride
        high = math.inf if level == max(levels) else 8 * stride
        fitting = []
        for index, (left, top, right, bottom) in enumerate(boxes):
            sides = x - left, y - top, right - x, bottom - y
            from_middle = abs(x - (left + right) / 2), abs(y - (top + bottom) / 2)
            if min(sides) > 0 and max(from_middle) < radius * stride and low < max(sides) < high:
                fitting.append((box_area(boxes[index]), index))
        matches.append(min(fitting)[1] if fitting else -1)
    return matches


def focal(logit: float, there: bool, alpha: float = 0.25, gamma: float = 2.0) -> float:
    """arXiv:1708.02002, equation 5."""
    p = 1 / (1 + math.exp(-logit))
    right, weight = (p, alpha) if there else (1 - p, 1 - alpha)
    return -weight * (1 - right) ** gamma * math.log(right)


def deltas(box, anchor) -> list[float]:
    """arXiv:1311.2524, equations 6 to 9."""
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    right = ((box[0] + box[2]) - (anchor[0] + anchor[2])) / 2 / width
    down = ((box[1] + box[3]) - (anchor[1] + anchor[3])) / 2 / height
    return [right, down, math.log((box[2] - box[0]) / width), math.log((box[3] - box[1]) / height)]


def moved(offsets, anchor) -> list[float]:
    """The box whose `deltas` these are."""
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x = (anchor[0] + anchor[2]) / 2 + offsets[0] * width
    y = (anchor[1] + anchor[3]) / 2 + offsets[1] * height
    half = math.exp(offsets[2]) * width / 2, math.exp(offsets[3]) * height / 2
    return [x - half[0], y - half[1], x + half[0], y + half[1]]


def retinanet_loop(scenes, outputs, anchors, box_loss: str) -> tuple[float, float]:
    """Losses of classes and of boxes; scenes are lists of (box, class), outputs (logits, offsets) of each image."""
    parts = []
    for scene, logits, offsets in zip(scenes, outputs["logits"], outputs["offsets"], strict=True):
        matches = match_loop([box for box, _ in scene], anchors)
        count = max(1, sum(match >= 0 for match in matches))
        classes = boxes = 0.0
        for place, match in enumerate(matches):
            if match == -2:
                continue
            for index, logit in enumerate(logits[place].tolist()):
                classes += focal(logit, match >= 0 and scene[match][1] == index)
            if match >= 0 and box_loss == "l1":
                wanted = deltas(scene[match][0], anchors[place])
                boxes += sum(abs(one - other) for one, other in zip(offsets[place].tolist(), wanted, strict=True))
            elif match >= 0:
                boxes += 1 - box_overlap(moved(offsets[place].tolist(), anchors[place]), scene[match][0], True)
        parts.append((classes / count, boxes / count))
    return tuple(np.mean(parts, axis=0))


def fcos_loop(scenes, outputs, points, strides, levels) -> tuple[float, float, float]:
    """Losses of classes, of boxes and of centerness."""
    count, classes, boxes, centerness = 0, 0.0, 0.0, 0.0
    for number, scene in enumerate(scenes):
        matches = sample_loop([box for box, _ in scene], points, strides, levels)
        for place, match in enumerate(matches):
            for index, logit in enumerate(outputs["logits"][number, place].tolist()):
                classes += focal(logit, match >= 0 and scene[match][1] == index)
            if match < 0:
                continue
            count += 1
            box, (x, y) = scene[match][0], points[place].tolist()
            left, top, right, bottom = (outputs["offsets"][number, place] * strides[place]).tolist()
            boxes += 1 - box_overlap([x - left, y - top, x + right, y + bottom], box, True)
            sides = x - box[0], box[2] - x, y - box[1], box[3] - y
            wanted = math.sqrt(min(sides[:2]) / max(sides[:2]) * min(sides[2:]) / max(sides[2:]))
            p = 1 / (1 + math.exp(-outputs["centerness"][number, place, 0]))
            centerness -= wanted * math.log(p) + (1 - wanted) * math.log(1 - p)
    return classes / max(count, 1), boxes / max(count, 1), centerness / max(count, 1)
