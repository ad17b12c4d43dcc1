"""The edge path: LiteRT files that run whole on the XNNPACK delegate, checked against Keras.

precision: what a file computes with, a name in `PRECISIONS`; of a training step see `kzoo.train`.
partition: a stretch of ops that XNNPACK runs; one partition means that the file runs whole in it.
answer: of several outputs of a file the one that says what is in a picture.
calibration: training images that ranges of activations are taken from.
evaluation: test images with their labels, on which Keras and file are scored.
card: `model.tflite.json` beside a file: what to feed it and what its answers mean; a run has a model card.
error: distance of a file's outputs to Keras'.
export report: what a file costs and what it lost, `ExportReport`.
"""

from kzoo.edge.card import Card, read_card
from kzoo.edge.export_report import ExportReport, draw_reports
from kzoo.edge.exporting import export, export_all, export_each
from kzoo.edge.format_report import FormatReport
from kzoo.edge.formats import export_onnx, export_saved_model
from kzoo.edge.interface import with_io
from kzoo.edge.precisions import PRECISIONS
from kzoo.edge.runtime import LiteRTModel

__all__ = [
    "PRECISIONS",
    "Card",
    "ExportReport",
    "FormatReport",
    "LiteRTModel",
    "draw_reports",
    "export",
    "export_all",
    "export_each",
    "export_onnx",
    "export_saved_model",
    "read_card",
    "with_io",
]
