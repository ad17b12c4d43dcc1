"""Boxes: how they overlap and are coded, which place finds which, what is kept of all that it says, how well.

box: left, top, right and bottom.
place: where a detector predicts a box: an anchor, or a point.
level: the places of one map of the pyramid, the finest first.
detections: what was found in one picture, the surest first.
"""

from kzoo.detection.average_precision import AveragePrecision
from kzoo.detection.suppression import FCOS, RETINANET, Detections, Suppression, detect

__all__ = ["FCOS", "RETINANET", "AveragePrecision", "Detections", "Suppression", "detect"]
