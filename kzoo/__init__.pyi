from . import check, edge, explain, images, layers, models, output, registry, surgery, taps, train, weights, zoo
from .edge import ExportReport, FormatReport, export, export_all, export_onnx, export_saved_model
from .explain import activations, attention_maps, grad_cam
from .fused_batch_norm import use_fused_batch_norm
from .meaning import with_classes
from .models.backbone import backbone
from .models.transfer import freeze_backbone, replace_head
from .page import write_page
from .predict.detector import detect
from .predict.tiles import predict_tiles
from .registry import list_models
from .surgery import fold_batch_norm
from .taps import pyramid
from .weights import WeightsReport, load_weights
from .zoo import ModelInfo, build, describe

__version__: str
__all__ = [
    "ExportReport",
    "FormatReport",
    "ModelInfo",
    "WeightsReport",
    "__version__",
    "activations",
    "attention_maps",
    "backbone",
    "build",
    "check",
    "describe",
    "detect",
    "edge",
    "explain",
    "export",
    "export_all",
    "export_onnx",
    "export_saved_model",
    "fold_batch_norm",
    "freeze_backbone",
    "grad_cam",
    "images",
    "layers",
    "list_models",
    "load_weights",
    "models",
    "output",
    "predict_tiles",
    "pyramid",
    "registry",
    "replace_head",
    "surgery",
    "taps",
    "train",
    "use_fused_batch_norm",
    "weights",
    "with_classes",
    "write_page",
    "zoo",
]
