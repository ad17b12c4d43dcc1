"""What a file takes and gives: its order, and its types: the integers that it computes with, bytes, or float32."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from kzoo.edge.flatbuffer import pack_file, unpack_file
from kzoo.edge.metadata import without_metadata
from kzoo.edge.runtime import LiteRTModel
from kzoo.errors import InvalidValueError, check_choice
from kzoo.precisions import Io
from kzoo.reading import read_bytes

IO = get_args(Io)
OTHER = "another type"
SHIFT = {"int8": 0, "uint8": 128}  # of the zero point, so that the integers stand for what they stood for


def with_io(source: bytes | str | Path, io: Io) -> bytes:
    """The file with inputs and outputs of another type, which computes the same numbers between them.

    Browsers (LiteRT.js) and MediaPipe take float32 and uint8 alone. Of a file whose input has scale 1 and stands for
    pixels, uint8 is the picture as it is. Where a file computes in float32 up to its output, in a softmax say, the
    output becomes that number and is rounded no more.

    Args:
        source: path of a LiteRT file, or its bytes, whose inputs and outputs are integers or float32.
        io: `"int8"`, `"uint8"` or `"float32"`.

    Returns:
        The bytes of the new file, all of whose ops XNNPACK runs as it ran those before. Metadata and labels inside
        the file are left out, as they tell of the former types: `kzoo.export(io=)` writes those of the new ones.

    Raises:
        InvalidValueError: no such `io`, integers for a file that computes with others there, or in float32, or an
            input or output of numbers without a scale, such as indices, which has another type.

    Example:
        >>> Path("browser.tflite").write_bytes(with_io("model_int8.tflite", "float32"))
    """
    check_choice("io", io, IO)
    content = source if isinstance(source, bytes) else read_bytes(source)
    LiteRTModel(content)  # refuses what is damaged
    model = unpack_file(content)
    without_metadata(model)
    graph = _Graph(model)
    for tensor in list(graph.inputs):
        graph.change_input(tensor, io)
    for tensor in list(graph.outputs):
        graph.change_output(tensor, io)
    return pack_file(model)


def with_float_outputs(content: bytes, names: Sequence[str]) -> bytes:
    """The file with these of its outputs, by their names in its signature, as float32; the rest stays as it is."""
    model = unpack_file(content)
    graph = _Graph(model)
    for each in list(model.signatureDefs[0].outputs):
        if each.name.decode() in names:
            graph.change_output(each.tensorIndex, "float32")
    return pack_file(model)


def in_order(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The file with its inputs and outputs in this order, by their names in its signature.

    TensorFlow's converter sorts the names, and the order of a dict is lost, whose first entry may be the answer.
    """
    if len(inputs) == len(outputs) == 1:
        return content
    model = unpack_file(content)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    for side, names in (("inputs", inputs), ("outputs", outputs)):
        known = {each.name.decode(): each for each in getattr(signature, side)}
        setattr(signature, side, [known[name] for name in names])
        setattr(graph, side, [known[name].tensorIndex for name in names])
    return pack_file(model)


class _Graph:
    """The first subgraph of a file, whose ops and tensors are changed in place; tensors are told by their index."""

    def __init__(self, model):
        from ai_edge_litert import schema_py_generated as schema

        self.schema, self.model, self.graph = schema, model, model.subgraphs[0]
        self.types = {name: getattr(schema.TensorType, name.upper()) for name in (*IO, "int16")}
        self.inputs, self.outputs = list(self.graph.inputs), list(self.graph.outputs)

    def change_input(self, tensor: int, io: Io) -> None:
        """Gives an input the type `io`; what reads it reads what it read."""
        if not self.check(tensor, io):
            return
        readers = self.readers(tensor)
        only_float = readers and all(self.is_op(op, "DEQUANTIZE") for op in readers)
        if only_float and io != "float32":
            self.retype(tensor, io)
            return
        new = self.in_place_of(tensor, io)
        if only_float:
            for op in readers:
                self.replace(op.outputs[0], new)
                self.graph.operators.remove(op)
        else:
            self.graph.operators[:0] = self.way(new, tensor, io)
        self.rename("inputs", tensor, new)

    def change_output(self, tensor: int, io: Io) -> None:
        """Gives an output the type `io`."""
        if not self.check(tensor, io):
            return
        maker = next(op for op in self.graph.operators if tensor in op.outputs)
        made_of_float = self.is_op(maker, "QUANTIZE") and self.type(maker.inputs[0]) == "float32"
        if made_of_float and not self.readers(tensor):
            if io != "float32":
                self.retype(tensor, io)
                return
            new = int(maker.inputs[0])
            self.graph.operators.remove(maker)
        else:
            new = self.in_place_of(tensor, io)
            self.graph.operators += self.way(tensor, new, io)
        self.rename("outputs", tensor, new)

    def check(self, tensor: int, io: Io) -> bool:
        """Whether the type has to change; raises `InvalidValueError` if it cannot."""
        type_ = self.type(tensor)
        if type_ == io:
            return False
        if io != "float32" and type_ not in SHIFT:
            raise InvalidValueError(
                f"io={io!r} is for files of 8-bit integers; {self.name(tensor)!r} of this one is {type_}"
            )
        quantization = self.graph.tensors[tensor].quantization
        if type_ == OTHER or quantization is None or quantization.scale is None or quantization.zeroPoint is None:
            raise InvalidValueError(
                f"{self.name(tensor)!r} of this file is {type_} without a scale, which stands for itself: it cannot "
                f"become {io}"
            )
        return True

    def type(self, tensor: int) -> str:
        """Name of the type of a tensor's numbers; `OTHER` where it is none of those that are known here."""
        number = self.graph.tensors[tensor].type
        return next((name for name, known in self.types.items() if known == number), OTHER)

    def name(self, tensor: int) -> str:
        return (self.graph.tensors[tensor].name or b"").decode(errors="replace")

    def extend_name(self, tensor: int, end: str) -> None:
        told = self.graph.tensors[tensor]
        told.name = (told.name or b"") + f"_{end}".encode()

    def readers(self, tensor: int) -> list:
        return [op for op in self.graph.operators if tensor in op.inputs]

    def is_op(self, op, name: str) -> bool:
        return self.model.operatorCodes[op.opcodeIndex].builtinCode == getattr(self.schema.BuiltinOperator, name)

    def retype(self, tensor: int, io: str) -> None:
        """Gives the tensor the other 8-bit type; its integers stand for the same numbers."""
        told = self.graph.tensors[tensor]
        shift = SHIFT[io] - SHIFT[self.type(tensor)]
        told.quantization.zeroPoint = [int(point) + shift for point in told.quantization.zeroPoint]
        told.type = self.types[io]

    def in_place_of(self, tensor: int, io: str) -> int:
        """A new tensor for the interface, to which the other one gives its name away."""
        new = self.copy(tensor, io)
        self.extend_name(tensor, self.type(tensor))
        return new

    def copy(self, tensor: int, io: str) -> int:
        """A new tensor of the same shape and name."""
        new = copy.deepcopy(self.graph.tensors[tensor])
        self.graph.tensors.append(new)
        index = len(self.graph.tensors) - 1
        if io == "float32":
            new.type, new.quantization = self.types[io], None
        else:
            self.retype(index, io)
        return index

    def way(self, start: int, end: int, io: str) -> list:
        """Ops from one tensor to the other, through float32 where both are integers: XNNPACK runs that alone."""
        if io == "float32":
            return [self.op("QUANTIZE" if self.type(start) == io else "DEQUANTIZE", start, end)]
        between = self.copy(end, "float32")
        self.extend_name(between, "float32")
        return [self.op("DEQUANTIZE", start, between), self.op("QUANTIZE", between, end)]

    def op(self, name: str, start: int, end: int):
        made = self.schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self.code(name), [start], [end]
        return made

    def code(self, name: str) -> int:
        """Index of the operator in the file's list, which gets it if need be."""
        number = getattr(self.schema.BuiltinOperator, name)
        for index, code in enumerate(self.model.operatorCodes):
            if code.builtinCode == number:
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = number
        code.version = 1
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def replace(self, tensor: int, new: int) -> None:
        """Has every op read `new` where it read `tensor`."""
        for op in self.readers(tensor):
            op.inputs = [new if index == tensor else int(index) for index in op.inputs]

    def rename(self, side: Literal["inputs", "outputs"], tensor: int, new: int) -> None:
        """Puts `new` into the place of an input or output, in the subgraph and in the signatures."""
        setattr(self.graph, side, [new if index == tensor else int(index) for index in getattr(self.graph, side)])
        for signature in self.model.signatureDefs or []:
            for each in getattr(signature, side):
                if each.tensorIndex == tensor:
                    each.tensorIndex = new
