"""kzoo: a model zoo for Keras 3, from the paper to the edge device.

>>> import kzoo
>>> model = kzoo.build("resnet50_cbam")
"""

from kzoo import onednn  # noqa: F401  first: TensorFlow asks for oneDNN once, when it is loaded

# isort: split

from kzoo import layers
from kzoo.edge import ExportReport, export, export_all
from kzoo.fused_batch_norm import use_fused_batch_norm
from kzoo.models.backbone import backbone, freeze_backbone
from kzoo.registry import list_models
from kzoo.surgery import fold_batch_norm
from kzoo.taps import pyramid
from kzoo.tiles import predict_tiles
from kzoo.weights import WeightsReport, load_weights
from kzoo.zoo import ModelInfo, build, describe

__version__ = "0.1.0"
__all__ = [
    "ExportReport",
    "ModelInfo",
    "WeightsReport",
    "backbone",
    "build",
    "describe",
    "export",
    "export_all",
    "fold_batch_norm",
    "freeze_backbone",
    "layers",
    "list_models",
    "load_weights",
    "predict_tiles",
    "pyramid",
    "use_fused_batch_norm",
]
