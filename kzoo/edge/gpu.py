"""What a mobile GPU refuses in a file: the rules of TFLite's GPU delegate, as data.

The delegate (OpenCL and OpenGL on Android, Metal on iOS) decides op by op; what it refuses runs on the CPU, with the
maps copied there and back. The rules were read in LiteRT's source of August 2026: `COMPATIBILITY`, what an op may be,
and `BUILDER`, what the delegate adds to it. The accelerator of LiteRT's newer `CompiledModel` takes a little more
(tensors of rank 5, ARG_MAX, transposed factors of BATCH_MATMUL), so that what passes here passes there. Ops that no
image network has (LSTM, ONE_HOT, custom ones) are judged by their name alone.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

COMPATIBILITY = "google-ai-edge/LiteRT tflite/tools/versioning/gpu_compatibility.cc"
BUILDER = "google-ai-edge/LiteRT tflite/delegates/gpu/common/model_builder.cc"
ANY_VERSION = 2**31
LARGEST_RANK = 4

# Newest version that the delegate takes of these ops (`CheckMaxSupportedOpVersion` in BUILDER).
VERSIONS = {
    1: "CUMSUM DENSIFY GATHER ONE_HOT PRELU RESHAPE SELECT SELECT_V2",
    2: "ABS ADD ADD_N AVERAGE_POOL_2D CONCATENATION COS DIV ELU EQUAL EXP FLOOR FLOOR_DIV FLOOR_MOD GELU GREATER "
    "GREATER_EQUAL LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGISTIC MAXIMUM MAX_POOL_2D MINIMUM MIRROR_PAD NEG "
    "NOT_EQUAL PAD PADV2 POW QUANTIZE RELU RELU6 RELU_N1_TO_1 RSQRT SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SQRT SQUARE "
    "SQUARED_DIFFERENCE SUB TANH",
    3: "DEQUANTIZE MUL RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR TRANSPOSE_CONV",
    4: "LSTM STRIDED_SLICE TRANSPOSE",
    6: "CONV_2D DEPTHWISE_CONV_2D",
    9: "FULLY_CONNECTED",
    ANY_VERSION: "BATCH_MATMUL CAST DEPTH_TO_SPACE HARD_SWISH MEAN PACK REDUCE_MAX REDUCE_MIN REDUCE_PROD SPLIT "
    "SPLIT_V SUM TILE",
}
OPS = {name: version for version, names in VERSIONS.items() for name in names.split()}
COMPARISONS = ("EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND", "NOT_EQUAL")
TYPES = ("FLOAT32", "FLOAT16", "INT8", "UINT8")
OTHER_TYPES = dict.fromkeys((*COMPARISONS, "SELECT", "SELECT_V2"), ("BOOL",)) | {"CAST": ("BOOL", "INT32")}
REDUCTIONS = ("MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM")


class Tensor(NamedTuple):
    """Number, shape and type of a tensor, and whether the file holds its values."""

    number: int
    shape: tuple[int, ...]
    type: str
    constant: bool


class Op(NamedTuple):
    """An op of a file; `options` are those of the schema, such as `SoftmaxOptionsT`."""

    name: str
    version: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Any

    @property
    def running(self) -> list[Tensor]:
        """The inputs that are computed as the file runs."""
        return [tensor for tensor in self.inputs if not tensor.constant]


@dataclass(frozen=True)
class Rule:
    """What the delegate refuses.

    Attributes:
        source: file that says so.
        refused: function from an op to what is wrong with it, as it is told behind the op's name, or None.
        ops: the ops that it is about; none: all.
    """

    source: str
    refused: Callable[[Op], str | None]
    ops: tuple[str, ...] = ()


def _name(op: Op) -> str | None:
    return None if op.name in OPS else ""


def _rank(op: Op) -> str | None:
    rank = max(len(tensor.shape) for tensor in (*op.inputs, *op.outputs))
    return f"of rank {rank}" if rank > LARGEST_RANK else None


def _version(op: Op) -> str | None:
    return f"of version {op.version}" if op.version > OPS[op.name] else None


def _type(op: Op) -> str | None:
    taken = TYPES + OTHER_TYPES.get(op.name, ())
    wrong = [tensor.type for tensor in (*op.running, *op.outputs) if tensor.type not in taken]
    return f"of {wrong[0]}" if wrong else None


def _slice_rank(op: Op) -> str | None:
    rank = len(op.inputs[0].shape)
    return None if rank in (3, 4) else f"of rank {rank}"


def _masks(op: Op) -> str | None:
    masks = {
        "an ellipsis": op.options.ellipsisMask,
        "a new axis": op.options.newAxisMask,
        "an axis that it removes": op.options.shrinkAxisMask,
    }
    return next((f"with {what}" for what, mask in masks.items() if mask), None)


def _padding(op: Op) -> str | None:
    rank = op.inputs[1].shape[0]
    return None if rank in (3, 4) else f"of rank {rank}"


def _outer_product(op: Op) -> str | None:
    first, second = (tensor.shape for tensor in op.inputs)
    if len(first) != len(second):
        return None
    larger = {a > b for a, b in zip(first, second, strict=True) if a != b}
    return f"of {_shape(first)} by {_shape(second)}" if len(larger) == 2 else None


def _broadcast(op: Op) -> str | None:
    short, long = sorted((tensor.shape for tensor in op.inputs), key=len)
    if len(short) in (0, 1, len(long)):
        return None
    taken = len(long) == LARGEST_RANK and (
        (len(short) == 3 and long[0] == 1)
        or (len(short) == 2 and long[0] == 1 and short == (1, 1))
        or (len(short) == 2 and (long[0], long[3]) == short)
    )
    return None if taken else f"of {_shape(op.inputs[0].shape)} and {_shape(op.inputs[1].shape)}"


def _constant_batch(op: Op) -> str | None:
    for tensor in op.inputs:
        if tensor.constant and len(tensor.shape) == LARGEST_RANK and tensor.shape[0] != 1:
            return f"with a constant of {_shape(tensor.shape)}"
    return None


def _dense(op: Op) -> str | None:
    map_, weights = op.inputs[:2]
    if map_.constant:
        return "of a constant"
    if len(op.running) > 2:
        return "with three computed inputs"
    if op.options.weightsFormat:
        return "with shuffled weights"
    if op.options.keepNumDims and len(map_.shape) != len(op.outputs[0].shape):
        return "that changes the rank"
    channels = map_.shape[-1] if len(map_.shape) > 1 else 1
    if channels != weights.shape[-1]:
        return f"of {weights.shape[-1]} inputs on a map of {channels} channels"
    rows = math.prod(map_.shape[:-1])
    return "that flattens a map" if not op.options.keepNumDims and rows != map_.shape[0] else None


def _product(op: Op) -> str | None:
    left, right = op.inputs
    if left.constant or (right.constant and len(right.shape) != 2):
        return "with a constant factor"
    return "with a transposed factor" if op.options.adjX or op.options.adjY else None


def _no_input(op: Op) -> str | None:
    return None if op.running else "of constants alone"


def _same_inputs(op: Op) -> str | None:
    first, second = op.inputs
    return "of a tensor with itself" if first.number == second.number else None


def _gather(op: Op) -> str | None:
    return None if op.inputs[1].type == "INT32" and len(op.inputs[1].shape) == 1 else "by indices of another kind"


def _select(op: Op) -> str | None:
    size = op.outputs[0].shape
    fits = all(tensor.shape in (size, (), (1,)) for tensor in op.inputs[1:])
    return None if fits else "that broadcasts"


def _depth_multiplier(op: Op) -> str | None:
    channels, multiplier = op.inputs[0].shape[-1], op.options.depthMultiplier
    return f"with {multiplier} outputs for a channel" if multiplier != 1 and channels != 1 else None


ARITHMETIC = ("ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "POW", "SQUARED_DIFFERENCE", "SUB")
RULES = (  # the first that refuses an op is the one that is told
    Rule(COMPATIBILITY, _name),
    Rule(BUILDER, _rank),
    Rule(BUILDER, _version),
    Rule(BUILDER, _type),
    Rule(COMPATIBILITY, _slice_rank, ("SLICE", "STRIDED_SLICE")),
    Rule(COMPATIBILITY, _masks, ("STRIDED_SLICE",)),
    Rule(COMPATIBILITY, _padding, ("PAD", "PADV2", "MIRROR_PAD")),
    Rule(COMPATIBILITY, lambda op: "that is symmetric" if op.options.mode else None, ("MIRROR_PAD",)),
    Rule(COMPATIBILITY, _outer_product, ("MUL",)),
    Rule(COMPATIBILITY, _broadcast, ("ADD", "MUL")),
    Rule(BUILDER, _constant_batch, ARITHMETIC),
    Rule(COMPATIBILITY, _dense, ("FULLY_CONNECTED",)),
    Rule(BUILDER, _product, ("BATCH_MATMUL",)),
    Rule(COMPATIBILITY, _no_input, ARITHMETIC + REDUCTIONS),
    Rule(BUILDER, _same_inputs, tuple(name for name in ARITHMETIC if name not in ("ADD", "MUL"))),
    Rule(COMPATIBILITY, lambda op: None if op.inputs[1].constant else "along computed axes", REDUCTIONS),
    Rule(COMPATIBILITY, _gather, ("GATHER",)),
    Rule(COMPATIBILITY, _select, ("SELECT", "SELECT_V2")),
    Rule(COMPATIBILITY, _depth_multiplier, ("DEPTHWISE_CONV_2D",)),
    Rule(COMPATIBILITY, lambda op: None if op.options.beta == 1 else "with a temperature", ("SOFTMAX",)),
    Rule(
        COMPATIBILITY,
        lambda op: "with both kinds of centres" if op.options.alignCorners and op.options.halfPixelCenters else None,
        ("RESIZE_BILINEAR",),
    ),
)


def gpu_refuses(content: bytes) -> dict[str, int]:
    """What a mobile GPU delegate would leave to the CPU.

    Args:
        content: a LiteRT file.

    Returns:
        What is refused -> how often, the most frequent first; nothing of a file that runs whole on a GPU.

    Example:
        >>> gpu_refuses(content)
        {'RESHAPE of rank 6': 12, 'GATHER_ND': 3}
    """
    found = Counter(reason for op in read_ops(content) if (reason := refusal(op)) is not None)
    return dict(found.most_common())


def refusal(op: Op) -> str | None:
    """The op's name with what is wrong with it, by the first of `RULES` that refuses it, or None."""
    for rule in RULES:
        if not rule.ops or op.name in rule.ops:
            reason = rule.refused(op)
            if reason is not None:
                return f"{op.name} {reason}".rstrip()
    return None


def gpu_in_words(refused: Mapping[str, int]) -> str:
    """'whole', or 'refuses 12 RESHAPE of rank 6, 3 GATHER_ND'."""
    if not refused:
        return "whole"
    return "refuses " + ", ".join(f"{count} {what}" for what, count in refused.items())


def read_ops(content: bytes) -> Iterator[Op]:
    """The ops of a file, in the order in which they run."""
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    types = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    model = schema.Model.GetRootAs(content, 0)
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        written = {
            graph.Operators(i).Outputs(j)
            for i in range(graph.OperatorsLength())
            for j in range(graph.Operators(i).OutputsLength())
        } | {graph.Inputs(i) for i in range(graph.InputsLength())}

        def tensor(index: int, graph=graph, written=written) -> Tensor:
            told = graph.Tensors(index)
            shape = tuple(int(told.Shape(axis)) for axis in range(told.ShapeLength()))
            return Tensor(index, shape, types[told.Type()], index not in written)

        for op in map(graph.Operators, range(graph.OperatorsLength())):
            code = model.OperatorCodes(op.OpcodeIndex())
            table = op.BuiltinOptions()
            yield Op(
                names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())],
                code.Version(),
                tuple(tensor(i) for i in map(op.Inputs, range(op.InputsLength())) if i >= 0),
                tuple(tensor(i) for i in map(op.Outputs, range(op.OutputsLength()))),
                None if table is None else schema.BuiltinOptionsCreator(op.BuiltinOptionsType(), table),
            )


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "()"
