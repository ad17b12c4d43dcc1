"""LiteRT files as objects of their schema, and back."""

from typing import Any

import flatbuffers

ALIGNMENT = 16  # of constants, which the schema of TFLite asks for


def unpack_file(content: bytes) -> Any:
    """The file as a `ModelT`, the object of the schema that `ai_edge_litert` generated."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def pack_file(model: Any) -> bytes:
    """A `ModelT` as the bytes of a file, with constants at multiples of 16 bytes as in the converter's files."""
    builder = _Aligned(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _Aligned(flatbuffers.Builder):
    """Aligns vectors of bytes, which the generated code forgets."""

    def StartVector(self, elemSize, numElems, alignment):
        return super().StartVector(elemSize, numElems, ALIGNMENT if elemSize == 1 else alignment)
