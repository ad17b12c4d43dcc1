"""What a mobile GPU refuses: every rule on files of one op, and what export tells of it.

TensorFlow's own analyzer is no reference: as of 2.21 it calls each of these files compatible.
"""

from dataclasses import dataclass, field

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from helpers import randomise

import kzoo
from kzoo import layers
from kzoo.edge.gpu import RULES, gpu_in_words, gpu_refuses
from kzoo.errors import InvalidValueError
from kzoo.registry import lookup

MAP = (1, 5, 7, 8)


@dataclass(frozen=True)
class Made:
    """A file of one op: tensors are shapes, (shape, type), or (shape, type, values), which are constant."""

    op: str
    inputs: tuple
    output: tuple
    options: dict = field(default_factory=dict)
    version: int = 1

    def operands(self) -> list[int]:
        """The indices of the op's inputs."""
        return list(range(len(self.inputs)))

    def content(self) -> bytes:
        model, graph, op = schema.ModelT(), schema.SubGraphT(), schema.OperatorT()
        model.version, model.description, model.buffers = 3, "", [schema.BufferT()]
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, self.op)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), self.version
        graph.tensors, graph.inputs = [], []
        for index, told in enumerate((*self.inputs, self.output)):
            plain = not told or isinstance(told[0], int)
            shape, kind, values = ((told, "FLOAT32") if plain else told) + (None,) * (
                3 - len((0, 0) if plain else told)
            )
            tensor = schema.TensorT()
            tensor.name, tensor.shape, tensor.type = f"t{index}", list(shape), getattr(schema.TensorType, kind)
            if values is not None:
                buffer = schema.BufferT()
                buffer.data = np.frombuffer(np.asarray(values).tobytes(), "uint8")
                model.buffers.append(buffer)
            elif index < len(self.inputs):
                graph.inputs.append(index)
            tensor.buffer = len(model.buffers) - 1 if values is not None else 0
            graph.tensors.append(tensor)
        op.inputs, op.outputs = self.operands(), [len(self.inputs)]
        graph.outputs, graph.operators = op.outputs, [op]
        model.operatorCodes, model.subgraphs = [code], [graph]
        name = OPTIONS.get(self.op)
        if name:
            op.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            op.builtinOptions = getattr(schema, f"{name}T")()
            for key, value in self.options.items():
                assert hasattr(op.builtinOptions, key)
                setattr(op.builtinOptions, key, value)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


class Same(Made):
    """The op of the one tensor twice."""

    def operands(self) -> list[int]:
        return [0, 0]


OPTIONS = {
    "ADD": "AddOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CAST": "CastOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "MEAN": "ReducerOptions",
    "MIRROR_PAD": "MirrorPadOptions",
    "MUL": "MulOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "SOFTMAX": "SoftmaxOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
}


def ints(*values) -> tuple:
    return ((len(values),), "INT32", np.array(values, "int32"))


def floats(*shape) -> tuple:
    return (shape, "FLOAT32", np.ones(shape, "float32"))


ZEROS, STEPS = ints(0, 0, 0, 0), ints(1, 1, 1, 1)
PADDING = ((4, 2), "INT32", np.zeros((4, 2), "int32"))
STRIDES = dict(strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
# A file that is taken, and one that differs in what a rule refuses, with what is said of it.
PAIRS = {
    "unknown": (Made("LOGISTIC", (MAP,), MAP), Made("GATHER_ND", (MAP, ints(0, 1)), (7, 8)), "GATHER_ND"),
    "rank": (
        Made("RESHAPE", (MAP, ints(5, 7, 2, 4)), (5, 7, 2, 4)),
        Made("RESHAPE", (MAP, ints(1, 5, 7, 2, 4)), (1, 5, 7, 2, 4)),
        "RESHAPE of rank 5",
    ),
    "version": (
        Made("LOGISTIC", (MAP,), MAP, version=2),
        Made("LOGISTIC", (MAP,), MAP, version=3),
        "LOGISTIC of version 3",
    ),
    "type": (Made("SUB", (MAP, MAP), MAP), Made("SUB", ((MAP, "INT32"),) * 2, (MAP, "INT32")), "SUB of INT32"),
    "cast": (
        Made("CAST", ((MAP, "INT32"),), MAP),
        Made("CAST", ((MAP, "INT64"),), MAP),
        "CAST of INT64",
    ),
    "slice": (
        Made("SLICE", (MAP, ZEROS, ints(1, 5, 7, 4)), (1, 5, 7, 4)),
        Made("SLICE", ((5, 8), ints(0, 0), ints(5, 4)), (5, 4)),
        "SLICE of rank 2",
    ),
    "strided slice": (
        Made("STRIDED_SLICE", (MAP, ZEROS, ints(1, 5, 7, 4), STEPS), (1, 5, 7, 4)),
        Made("STRIDED_SLICE", (MAP, ZEROS, ints(1, 5, 7, 4), STEPS), (5, 7, 4), dict(shrinkAxisMask=1)),
        "STRIDED_SLICE with an axis that it removes",
    ),
    "pad": (
        Made("PAD", (MAP, PADDING), MAP),
        Made("PAD", ((5, 8), ((2, 2), "INT32", np.zeros((2, 2), "int32"))), (5, 8)),
        "PAD of rank 2",
    ),
    "mirror pad": (
        Made("MIRROR_PAD", (MAP, PADDING), MAP, dict(mode=0)),
        Made("MIRROR_PAD", (MAP, PADDING), MAP, dict(mode=1)),
        "MIRROR_PAD that is symmetric",
    ),
    "outer product": (
        Made("MUL", (MAP, (1, 1, 1, 8)), MAP),
        Made("MUL", ((1, 5, 7, 1), (1, 1, 1, 8)), MAP),
        "MUL of 1×5×7×1 by 1×1×1×8",
    ),
    "broadcast": (Made("ADD", (MAP, (7, 8, 1)), MAP), Made("ADD", (MAP, (7, 8)), MAP), "ADD of 1×5×7×8 and 7×8"),
    "constant": (
        Made("ADD", ((4, 5, 7, 8), floats(1, 5, 7, 8)), (4, 5, 7, 8)),
        Made("ADD", ((4, 5, 7, 8), floats(4, 1, 7, 8)), (4, 5, 7, 8)),
        "ADD with a constant of 4×1×7×8",
    ),
    "dense": (
        Made("FULLY_CONNECTED", (MAP, floats(3, 8)), (1, 5, 7, 3), dict(keepNumDims=True)),
        Made("FULLY_CONNECTED", (MAP, floats(3, 280)), (1, 3)),
        "FULLY_CONNECTED of 280 inputs on a map of 8 channels",
    ),
    "dense, flattened": (
        Made("FULLY_CONNECTED", ((1, 1, 1, 8), floats(3, 8)), (1, 3)),
        Made("FULLY_CONNECTED", (MAP, floats(3, 8)), (35, 3)),
        "FULLY_CONNECTED that flattens a map",
    ),
    "dense, constant": (
        Made("FULLY_CONNECTED", ((2, 8), floats(3, 8)), (2, 3)),
        Made("FULLY_CONNECTED", (floats(2, 8), (3, 8)), (2, 3)),
        "FULLY_CONNECTED of a constant",
    ),
    "dense, shuffled": (
        Made("FULLY_CONNECTED", ((2, 8), floats(3, 8)), (2, 3)),
        Made("FULLY_CONNECTED", ((2, 8), floats(3, 8)), (2, 3), dict(weightsFormat=1)),
        "FULLY_CONNECTED with shuffled weights",
    ),
    "product, constant": (
        Made("BATCH_MATMUL", (MAP, floats(8, 3)), (1, 5, 7, 3)),
        Made("BATCH_MATMUL", (MAP, floats(1, 5, 8, 3)), (1, 5, 7, 3)),
        "BATCH_MATMUL with a constant factor",
    ),
    "product, transposed": (
        Made("BATCH_MATMUL", (MAP, (1, 5, 8, 3)), (1, 5, 7, 3)),
        Made("BATCH_MATMUL", (MAP, (1, 5, 3, 8)), (1, 5, 7, 3), dict(adjY=True)),
        "BATCH_MATMUL with a transposed factor",
    ),
    "constants": (
        Made("SUB", (MAP, floats(8)), MAP),
        Made("SUB", (floats(*MAP), floats(8)), MAP),
        "SUB of constants alone",
    ),
    "axes": (
        Made("MEAN", (MAP, ints(1, 2)), (1, 1, 1, 8), dict(keepDims=True)),
        Made("MEAN", (MAP, (2,)), (1, 1, 1, 8), dict(keepDims=True)),
        "MEAN along computed axes",
    ),
    "division": (
        Made("DIV", (MAP, MAP), MAP),
        Same("DIV", (MAP,), MAP),
        "DIV of a tensor with itself",
    ),
    "gather": (
        Made("GATHER", (MAP, ints(1, 0)), (1, 2, 7, 8), dict(axis=1)),
        Made("GATHER", (MAP, ((1, 2), "INT32", np.zeros((1, 2), "int32"))), (1, 1, 2, 7, 8)[1:], dict(axis=1)),
        "GATHER by indices of another kind",
    ),
    "select": (
        Made("SELECT_V2", ((MAP, "BOOL"), MAP, ()), MAP),
        Made("SELECT_V2", ((MAP, "BOOL"), MAP, (1, 1, 1, 8)), MAP),
        "SELECT_V2 that broadcasts",
    ),
    "depthwise": (
        Made("DEPTHWISE_CONV_2D", (MAP, floats(1, 3, 3, 8)), MAP, STRIDES | dict(depthMultiplier=1)),
        Made("DEPTHWISE_CONV_2D", (MAP, floats(1, 3, 3, 16)), (1, 5, 7, 16), STRIDES | dict(depthMultiplier=2)),
        "DEPTHWISE_CONV_2D with 2 outputs for a channel",
    ),
    "softmax": (
        Made("SOFTMAX", (MAP,), MAP, dict(beta=1.0)),
        Made("SOFTMAX", (MAP,), MAP, dict(beta=2.0)),
        "SOFTMAX with a temperature",
    ),
    "resize": (
        Made("RESIZE_BILINEAR", (MAP, ints(10, 14)), (1, 10, 14, 8), dict(halfPixelCenters=True), 3),
        Made(
            "RESIZE_BILINEAR", (MAP, ints(10, 14)), (1, 10, 14, 8), dict(halfPixelCenters=True, alignCorners=True), 3
        ),
        "RESIZE_BILINEAR with both kinds of centres",
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", PAIRS)
def test_each_rule(name):
    taken, refused, words = PAIRS[name]
    assert gpu_refuses(taken.content()) == {}
    assert gpu_refuses(refused.content()) == {words: 1}


@pytest.mark.quick
def test_no_rule_without_a_file():
    refused = {words.split()[0] for _, _, words in PAIRS.values()}
    assert all(refused & set(rule.ops) for rule in RULES if rule.ops)
    assert len(PAIRS) >= len(RULES) + 1


@pytest.mark.quick
def test_in_words():
    assert gpu_in_words({}) == "whole"
    assert gpu_in_words({"RESHAPE of rank 6": 12, "GATHER_ND": 3}) == "refuses 12 RESHAPE of rank 6, 3 GATHER_ND"


def test_attention_for_the_gpu_is_the_same_and_whole(tmp_path):
    inputs = keras.Input((9, 13, 3))  # no multiple of a window
    x = layers.WindowAttention(2, 4, 2)(keras.layers.Conv2D(8, 1)(inputs))
    x = layers.NeighborhoodAttention(2, 3)(layers.LayerNormalization()(x))
    model = randomise(keras.Model(inputs, x))
    masks = {"MINIMUM with a constant of 12×1×16×16": 1, "MINIMUM with a constant of 2×1×63×81": 1}
    for target, refused in {"cpu": masks, "gpu": {}}.items():
        report = kzoo.export(model, tmp_path / f"{target}.tflite", target=target)
        assert report.relative_error < 1e-5
        assert (report.xnnpack_partitions, report.ops_outside_xnnpack) == (1, {})
        assert report.gpu_refuses == refused
        assert f"| GPU | {gpu_in_words(refused)} |" in report.to_markdown()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin_tiny", "nat_tiny", "resnet50", "resnet50_cbam", "unet_padded", "googlenet"])
def test_families_for_the_gpu_are_the_same_and_whole(name, tmp_path):
    entry = lookup(name)
    size = (entry.narrow_size - 4, entry.narrow_size)
    options = dict(entry.narrow) | (dict(classifier_activation=None) if name != "unet_padded" else {})
    model = kzoo.fold_batch_norm(randomise(kzoo.build(name, input_shape=(*size, 3), **options)))
    report = kzoo.export(model, tmp_path / "gpu.tflite", target="gpu")
    assert report.relative_error < 1e-5
    assert report.gpu_refuses == {}


def test_a_target_that_does_not_exist(tmp_path):
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(InvalidValueError, match="target='tpu' is not accepted; use one of 'cpu', 'gpu'"):
        kzoo.export(keras.Model(inputs, inputs), tmp_path / "model.tflite", target="tpu")
