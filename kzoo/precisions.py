"""The precisions a model can leave in, and what LiteRT's XNNPACK delegate has kernels for: as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

CONV, DEPTHWISE, TRANSPOSED, DENSE = "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED"
# What litert-quantizer calls the ops that multiply by weights.
LINEAR = (CONV, DEPTHWISE, TRANSPOSED, DENSE)


@dataclass(frozen=True)
class Precision:
    """What a file of this precision holds.

    The quantizer's recipes (`kzoo.edge.quantize`) and all that simulates a file in training and surgery
    (`kzoo.surgery.fake_quantization`, `correct_bias`) follow from it.

    Attributes:
        summary: weights and activations, in words.
        bound: largest accepted norm of the error over the norm of Keras' output. Float files differ by rounding;
            integers are coarse, and their bound only rejects files that are broken.
        weight_bits: op of `LINEAR` -> bits of its integer weights; those of the others stay float.
        activation_bits: of the activations; None where they are float, or quantized as the file runs.
        least_error: whether the step of 4-bit weights is the one of least error for weights that are normally
            distributed, else the largest magnitude is the largest integer.
        dynamic: whether activations before a weighted op are quantized to 8 bits as the file runs.
        calibrated: whether it needs images for the ranges of the activations.
        slow: LiteRT has reference kernels alone: far slower than float32, and fewer images are compared.
    """

    summary: str
    bound: float
    weight_bits: Mapping[str, int] = field(default_factory=dict)
    activation_bits: int | None = None
    least_error: bool = False
    dynamic: bool = False
    calibrated: bool = False
    slow: bool = False

    def bits(self, op: str, inputs: int) -> int | None:
        """Bits of the weights of one op, None if they are float.

        Args:
            op: of `LINEAR`.
            inputs: of each output of a dense layer; two 4-bit weights share a byte, and an odd one gets 8 bits.
        """
        bits = self.weight_bits.get(op)
        return 8 if bits == 4 and op == DENSE and inputs % 2 else bits


_ALL_8 = dict.fromkeys(LINEAR, 8)
# XNNPACK has no depthwise kernel for float activations and integer weights: each would cut its partition.
_DYNAMIC_8 = {op: 8 for op in LINEAR if op != DEPTHWISE}

PRECISIONS = {
    "float32": Precision("weights and activations float32", 1e-4),
    "float16": Precision("weights float16, computed in float32: half the size", 0.05),
    "int8_weights": Precision("weights int8, computed in float32: a quarter of the size", 0.5, _ALL_8),
    "int8_dynamic": Precision(
        "weights int8, activations quantized as the file runs, input and output float32", 0.5, _DYNAMIC_8, dynamic=True
    ),
    "int8": Precision("weights, activations, input and output int8", 0.5, _ALL_8, 8, calibrated=True),
    "int16x8": Precision(
        "weights int8, activations, input and output int16", 0.1, _ALL_8, 16, calibrated=True, slow=True
    ),
    # XNNPACK refuses to run dense layers of 4 bits between integer activations
    "int4": Precision(
        "weights of convolutions int4, all else as in int8", 0.8, _ALL_8 | {CONV: 4}, 8, calibrated=True, slow=True
    ),
    # and between float ones multiplies by 4-bit weights in dense layers alone
    "int4_weights": Precision(
        "weights of dense layers int4, others int8, activations as in int8_dynamic",
        0.8,
        _DYNAMIC_8 | {DENSE: 4},
        least_error=True,
        dynamic=True,
    ),
}

if TYPE_CHECKING:  # which cannot read names out of data; what checks values as the program runs can
    PrecisionName = str
else:
    PrecisionName = Literal[(*PRECISIONS,)]


Io = Literal["int8", "uint8", "float32"]  # what a file of 8-bit integers takes and gives
Target = Literal["cpu", "gpu"]  # what a file is for


@dataclass(frozen=True)
class StaticPolicy:
    """Which ops of a file compute in integers when activations are quantized too; the others stay float.

    Integer and float ops stay in one partition, with QUANTIZE and DEQUANTIZE between them, as long as XNNPACK has a
    kernel for each. It has none for some ops in int8, which cut its partition when they are quantized.

    Attributes:
        shown_by: a file that holds this op is quantized so; `DETECTOR`: one that gives boxes and scores; "" suits any.
        integer: the ops that compute in integers; none: all.
        kept_float: ops that stay float.
        float_ends: whether all that follows the last op of `LINEAR` stays float, up to the outputs.
    """

    shown_by: str = ""
    integer: tuple[str, ...] = ()
    kept_float: tuple[str, ...] = ()
    float_ends: bool = False


DETECTOR = "boxes and scores"
_CUTS = ("AVERAGE_POOL_2D", "BATCH_MATMUL", "GELU", "RELU", "SOFTMAX")
# The first that suits a file is taken. RSQRT is of layer normalisation, whose variance 8 bits cannot hold: in
# Swin and NAT only what multiplies by weights is worth quantizing. Offsets have a scale for each level of a detector
# as long as nothing joins them in integers, and boxes that are decoded in integers would lie on a grid of 256 lines.
STATIC_POLICIES = {
    "linear": StaticPolicy(shown_by="RSQRT", integer=("INPUT", "OUTPUT", *LINEAR)),
    "detector": StaticPolicy(shown_by=DETECTOR, kept_float=_CUTS, float_ends=True),
    "whole": StaticPolicy(kept_float=_CUTS),
}
