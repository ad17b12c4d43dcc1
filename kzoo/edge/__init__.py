"""The edge path: LiteRT files that run whole on the XNNPACK delegate, checked against Keras."""

from kzoo.edge.card import Card, read_card
from kzoo.edge.exporting import export, export_all, export_each
from kzoo.edge.precisions import PRECISIONS
from kzoo.edge.report import ExportReport, draw_reports
from kzoo.edge.runtime import LiteRTModel

__all__ = [
    "PRECISIONS",
    "Card",
    "ExportReport",
    "LiteRTModel",
    "draw_reports",
    "export",
    "export_all",
    "export_each",
    "read_card",
]
