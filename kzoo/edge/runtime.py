"""Running LiteRT files: float images in, float outputs out, whatever the file's own types are."""

import os
import time
from collections import Counter
from pathlib import Path

import numpy as np

from kzoo.apart import open_apart
from kzoo.errors import InvalidValueError
from kzoo.reading import read_bytes

DELEGATE = "DELEGATE"
KERNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0, "FULLY_CONNECTED": 0}  # output channels


class LiteRTModel:
    """A `.tflite` file with one input and one output in the interpreter.

    Args:
        source: path of the file, or its bytes. What this process has not opened before is first opened and run once
            in a process of its own, as a damaged file can crash the interpreter: see `kzoo.opener`.
        num_threads: number of threads of the interpreter; default: one for each CPU core.

    Raises:
        InvalidValueError: the file cannot be read or run, needs more memory or time than a file may, or has several
            inputs or outputs.

    Example:
        >>> LiteRTModel("model.tflite").predict(images).shape
        (360, 10)
    """

    def __init__(self, source: str | Path | bytes, num_threads: int | None = None):
        content = source if isinstance(source, bytes) else read_bytes(source)
        self.size_bytes = len(content)
        self._interpreter = _interpreter(content, num_threads or os.cpu_count() or 1)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise InvalidValueError(f"the file has {len(inputs)} inputs and {len(outputs)} outputs; one each is run")
        self.input, self.output = inputs[0], outputs[0]
        if 0 in (*self.input["shape"], *self.output["shape"]):
            shapes = self.input_shape, tuple(int(size) for size in self.output["shape"])
            raise InvalidValueError(f"the file takes {shapes[0]} and gives {shapes[1]}; one of them is of no numbers")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape (batch, height, width, channels) of the input."""
        return tuple(int(size) for size in self.input["shape"])

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Outputs for images (n, height, width, channels); a last, smaller batch is padded with zeros."""
        images = np.asarray(images, "float32")
        if images.shape[1:] != self.input_shape[1:]:
            raise InvalidValueError(f"the file takes images of shape {self.input_shape[1:]}, got {images.shape[1:]}")
        batch = self.input_shape[0]
        outputs = []
        for start in range(0, len(images), batch):
            chunk = images[start : start + batch]
            padded = np.zeros(self.input_shape, "float32")
            padded[: len(chunk)] = chunk
            outputs.append(self._invoke(_quantize(padded, self.input))[: len(chunk)])
        return np.concatenate(outputs) if outputs else np.zeros((0, *self.output["shape"][1:]), "float32")

    def _invoke(self, batch: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self.input["index"], batch)
        self._interpreter.invoke()
        return _dequantize(self._interpreter.get_tensor(self.output["index"]), self.output)

    def signature(self) -> tuple[str | None, list[str | None], list[str | None]]:
        """Name of the signature, and its names of input and output; None where the file has no signature."""
        for name, names in self._interpreter.get_signature_list().items():
            return name, names["inputs"], names["outputs"]
        return None, [None], [None]

    def op_histogram(self) -> dict[str, int]:
        """How often each built-in op stands in the file."""
        return dict(Counter(op["op_name"] for op in self._plain_ops()).most_common())

    def last_op(self) -> str:
        """The built-in op that computes the output, or "" where none does.

        What follows it changes type or shape alone, and leaves the last axis as wide as it is.
        """
        widths = {detail["index"]: list(detail["shape"])[-1:] for detail in self._interpreter.get_tensor_details()}
        tensor, name = self.output["index"], ""
        for op in reversed(self._plain_ops()):
            if tensor not in op["outputs"]:
                continue
            name = op["op_name"]
            if name not in ("QUANTIZE", "DEQUANTIZE", "RESHAPE") or widths[op["inputs"][0]] != widths[tensor]:
                return name
            tensor = op["inputs"][0]
        return name

    def dense_inputs(self) -> dict[str, int]:
        """Name of what each dense layer writes -> the number of its inputs."""
        details = {detail["index"]: detail for detail in self._interpreter.get_tensor_details()}
        dense = (op for op in self._plain_ops() if op["op_name"] == "FULLY_CONNECTED")
        return {details[op["outputs"][0]]["name"]: int(details[op["inputs"][1]]["shape"][-1]) for op in dense}

    def kernels(self) -> dict[str, tuple[np.ndarray, int]]:
        """Name -> values and axis of the output channels, of every constant that an op multiplies its input by."""
        details = {detail["index"]: detail for detail in self._interpreter.get_tensor_details()}
        written = {index for op in self._plain_ops() for index in op["outputs"]} | {self.input["index"]}
        kernels = {
            op["inputs"][1]: KERNEL_AXES[op["op_name"]] for op in self._plain_ops() if op["op_name"] in KERNEL_AXES
        }
        return {
            details[index]["name"]: (self._interpreter.get_tensor(index), axis)
            for index, axis in kernels.items()
            if index not in written
        }

    def activation_names(self) -> set[str]:
        """Names of the tensors that the ops of the file write."""
        written = {index for op in self._plain_ops() for index in op["outputs"]}
        details = self._interpreter.get_tensor_details()
        return {detail["name"] for detail in details if detail["index"] in written}

    def activation_bytes(self) -> int:
        """Size of all tensors that the ops of the file write, one after the other, in one invocation."""
        written = {index for op in self._plain_ops() for index in op["outputs"]}
        return sum(
            int(np.prod(detail["shape"])) * np.dtype(detail["dtype"]).itemsize
            for detail in self._interpreter.get_tensor_details()
            if detail["index"] in written
        )

    def xnnpack_partitions(self) -> int:
        """Pieces in which the XNNPACK delegate runs the file."""
        return sum(op["op_name"] == DELEGATE for op in self._interpreter._get_ops_details())

    def ops_outside_xnnpack(self) -> dict[str, int]:
        """How often each built-in op runs outside the XNNPACK delegate."""
        plain = self._plain_ops()
        makers = {tensor: op for op in plain for tensor in op["outputs"]}
        inside = set()
        for piece in self._interpreter._get_ops_details():
            if piece["op_name"] == DELEGATE:
                inside |= _between(makers, set(piece["inputs"]), list(piece["outputs"]))
        return dict(Counter(op["op_name"] for op in plain if op["index"] not in inside).most_common())

    def latency_ms(self, runs: int = 20) -> float:
        """Median time of one invocation, after two that are not counted."""
        batch = np.zeros(self.input_shape, self.input["dtype"])
        times = []
        for _ in range(runs + 2):
            start = time.perf_counter()
            self._invoke(batch)
            times.append(time.perf_counter() - start)
        return 1000 * float(np.median(times[2:]))

    def _plain_ops(self) -> list[dict]:
        """The ops of the file, which stay listed when a delegate has taken them."""
        return [op for op in self._interpreter._get_ops_details() if op["op_name"] != DELEGATE]


def _between(makers: dict[int, dict], inputs: set[int], outputs: list[int]) -> set[int]:
    """Indices of the ops that lead from the tensors `inputs` to the tensors `outputs`."""
    found = set()
    while outputs:
        op = makers.get(outputs.pop())
        if op is not None and op["index"] not in found:
            found.add(op["index"])
            outputs += set(op["inputs"]) - inputs
    return found


def _interpreter(content: bytes, num_threads: int):
    from ai_edge_litert.interpreter import Interpreter

    try:
        open_apart("litert", content, threads=num_threads)
        interpreter = Interpreter(model_content=content, num_threads=num_threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InvalidValueError(f"no LiteRT file that this interpreter can run: {error}") from error
    return interpreter


def _quantize(array: np.ndarray, detail: dict) -> np.ndarray:
    dtype = detail["dtype"]
    if not np.issubdtype(dtype, np.integer):
        return array.astype(dtype)
    scale, zero_point = _quantization(detail)
    limits = np.iinfo(dtype)
    return np.clip(np.round(array / scale) + zero_point, limits.min, limits.max).astype(dtype)


def _dequantize(array: np.ndarray, detail: dict) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.integer):
        return array.astype("float32")
    scale, zero_point = _quantization(detail)
    return (array.astype("float32") - zero_point) * scale


def _quantization(detail: dict) -> tuple[float, int]:
    """Scale and zero point of integers; those that the file does not quantise, of scale 0, stand for themselves."""
    scale, zero_point = detail["quantization"]
    return (scale, zero_point) if scale else (1.0, 0)
