"""The precisions a model can leave in, and what LiteRT's XNNPACK delegate has kernels for: as data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """What a file of this precision holds.

    Attributes:
        summary: weights and activations, in words.
        bound: largest accepted norm of the error over the norm of Keras' output. Float files differ by rounding;
            integers are coarse, and their bound only rejects files that are broken.
        calibrated: whether it needs images for the ranges of the activations.
        slow: LiteRT has reference kernels alone: far slower than float32, and fewer images are compared.
    """

    summary: str
    bound: float
    calibrated: bool = False
    slow: bool = False


PRECISIONS = {
    "float32": Precision("weights and activations float32", 1e-4),
    "float16": Precision("weights float16, computed in float32: half the size", 0.05),
    "int8_weights": Precision("weights int8, computed in float32: a quarter of the size", 0.5),
    "int8_dynamic": Precision("weights int8, activations quantized as the file runs, input and output float32", 0.5),
    "int8": Precision("weights, activations, input and output int8", 0.5, calibrated=True),
    "int16x8": Precision("weights int8, activations, input and output int16", 0.1, calibrated=True, slow=True),
    "int4": Precision("weights of convolutions int4, all else as in int8", 0.8, calibrated=True, slow=True),
    "int4_weights": Precision("weights of dense layers int4, others int8, activations as in int8_dynamic", 0.8),
}

# What litert-quantizer calls the ops that multiply by weights.
LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED")


@dataclass(frozen=True)
class StaticPolicy:
    """Which ops of a file compute in integers when activations are quantized too; the others stay float.

    Integer and float ops stay in one partition, with QUANTIZE and DEQUANTIZE between them, as long as XNNPACK has a
    kernel for each. It has none for some ops in int8, which cut its partition when they are quantized.

    Attributes:
        shown_by: a file that holds this op is quantized so; "" suits any.
        integer: the ops that compute in integers; none: all.
        kept_float: ops that stay float.
    """

    shown_by: str = ""
    integer: tuple[str, ...] = ()
    kept_float: tuple[str, ...] = ()


# The first that suits a file is taken. RSQRT is of layer normalisation, whose variance 8 bits cannot hold: in
# Swin and NAT only what multiplies by weights is worth quantizing.
STATIC_POLICIES = {
    "linear": StaticPolicy(shown_by="RSQRT", integer=("INPUT", "OUTPUT", *LINEAR)),
    "whole": StaticPolicy(kept_float=("AVERAGE_POOL_2D", "BATCH_MATMUL", "GELU", "RELU", "SOFTMAX")),
}
