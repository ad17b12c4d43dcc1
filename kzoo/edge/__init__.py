"""The edge path: LiteRT files that run whole on the XNNPACK delegate, checked against Keras."""

from kzoo.edge.convert import PRECISIONS, ExportReport, export
from kzoo.edge.runtime import LiteRTModel

__all__ = ["PRECISIONS", "ExportReport", "LiteRTModel", "export"]
