"""Running LiteRT files: float images in, float outputs out, whatever the file's own types are."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kzoo.apart import open_apart
from kzoo.errors import InvalidValueError
from kzoo.last_operation import is_of_detector
from kzoo.reading import read_bytes

DELEGATE = "DELEGATE"
KERNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0, "FULLY_CONNECTED": 0}  # output channels


class LiteRTModel:
    """A `.tflite` file in the interpreter.

    Args:
        source: path of the file, or its bytes. What this process has not opened before is first opened and run once
            in a process of its own, as a damaged file can crash the interpreter: see `kzoo.opener`.
        num_threads: number of threads of the interpreter; default: one for each CPU core.
        answer: name of the output that `predict` gives, of a file with several; default: all of them.

    Attributes:
        path: of the file, beside which its card lies; None of bytes.
        inputs, outputs: name -> shape, type and so on, in the order of the file; names are those of its signature.

    Raises:
        InvalidValueError: the file cannot be read or run, or needs more memory or time than a file may.

    Example:
        >>> LiteRTModel("model.tflite").predict(images).shape
        (360, 10)
        >>> LiteRTModel("pyramid.tflite").predict_each(images)["p3"].shape
        (360, 28, 28, 128)
    """

    def __init__(self, source: str | Path | bytes, num_threads: int | None = None, answer: str | None = None):
        content = source if isinstance(source, bytes) else read_bytes(source)
        self.path = None if isinstance(source, bytes) else Path(source)
        self.size_bytes = len(content)
        self._interpreter = _interpreter(content, num_threads or os.cpu_count() or 1)
        told = _only_signature(self._interpreter)
        self.inputs = _named(self._interpreter.get_input_details(), told.get("inputs", {}))
        self.outputs = _named(self._interpreter.get_output_details(), told.get("outputs", {}))
        for name, detail in {**self.inputs, **self.outputs}.items():
            if 0 in (shape := tuple(int(size) for size in detail["shape"])):
                raise InvalidValueError(f"{name!r} of the file has shape {shape}, which is of no numbers")
        if answer is not None and answer not in self.outputs:
            raise InvalidValueError(f"the file has no output {answer!r}; it has {', '.join(self.outputs)}")
        self.answer = answer

    @property
    def input(self) -> dict:
        """The only input; raises `InvalidValueError` if there are several."""
        return _only(self.inputs, "inputs")

    @property
    def output(self) -> dict:
        """The answer, or the only output; raises `InvalidValueError` if there are several."""
        return self.outputs[self.answer] if self.answer else _only(self.outputs, "outputs")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape (batch, height, width, channels) of the only input."""
        return tuple(int(size) for size in self.input["shape"])

    @property
    def is_detector(self) -> bool:
        """Whether it gives the boxes and scores of a detector."""
        return is_of_detector({name: tuple(map(int, detail["shape"])) for name, detail in self.outputs.items()})

    @property
    def signature(self) -> str | None:
        """Name of the signature whose names inputs and outputs have; None where there is none, or several."""
        names = list(self._interpreter.get_signature_list())
        return names[0] if len(names) == 1 else None

    @property
    def batch_size(self) -> int:
        """Number of images in one invocation."""
        return int(next(iter(self.inputs.values()))["shape"][0])

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The answer, or the only output, for images (n, height, width, channels), as float32.

        Raises:
            InvalidValueError: several inputs, several outputs none of which is the answer, or another shape.
        """
        name = next(name for name, detail in self.outputs.items() if detail is self.output)
        return self.predict_each(images)[name]

    def predict_each(self, images: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by its name, (n, ...) of float32.

        Args:
            images: (n, height, width, channels); of several inputs name -> array. A last, smaller batch is padded with
                zeros.

        Raises:
            InvalidValueError: another shape, name or number of images.
        """
        arrays = self._check(images)
        count, batch = len(next(iter(arrays.values()))), self.batch_size
        outputs: dict[str, list] = {name: [] for name in self.outputs}
        for start in range(0, count, batch):
            left = min(batch, count - start)
            for name, detail in self.inputs.items():
                padded = np.zeros(detail["shape"], "float32")
                padded[:left] = arrays[name][start : start + left]
                self._interpreter.set_tensor(detail["index"], _quantize(padded, detail))
            self._interpreter.invoke()
            for name, detail in self.outputs.items():
                outputs[name].append(_dequantize(self._interpreter.get_tensor(detail["index"]), detail)[:left])
        return {
            name: np.concatenate(parts) if parts else np.zeros((0, *self.outputs[name]["shape"][1:]), "float32")
            for name, parts in outputs.items()
        }

    def _check(self, images: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Input name -> images as float32; raises `InvalidValueError` if they do not fit."""
        if not isinstance(images, Mapping):
            _only(self.inputs, "inputs")
            images = dict.fromkeys(self.inputs, images)
        if images.keys() != self.inputs.keys():
            raise InvalidValueError(f"the file takes {', '.join(self.inputs)}, got {', '.join(map(str, images))}")
        arrays = {name: np.asarray(array, "float32") for name, array in images.items()}
        for name, array in arrays.items():
            if array.shape[1:] != (shape := tuple(int(size) for size in self.inputs[name]["shape"][1:])):
                raise InvalidValueError(f"the file takes images of shape {shape}, got {array.shape[1:]}")
        if len(counts := {len(array) for array in arrays.values()}) > 1:
            raise InvalidValueError(f"the inputs have {sorted(counts)} images; each needs as many")
        return arrays

    def op_histogram(self) -> dict[str, int]:
        """How often each built-in op stands in the file."""
        return dict(Counter(op["op_name"] for op in self._plain_ops()).most_common())

    def last_op(self, output: str | None = None) -> str:
        """The built-in op that computes an output, or the only one, or "" where none does.

        What follows it changes type or shape alone, and leaves the last axis as wide as it is.
        """
        widths = {detail["index"]: list(detail["shape"])[-1:] for detail in self._interpreter.get_tensor_details()}
        tensor, name = (self.output if output is None else self.outputs[output])["index"], ""
        for op in reversed(self._plain_ops()):
            if tensor not in op["outputs"]:
                continue
            name = op["op_name"]
            if name not in ("QUANTIZE", "DEQUANTIZE", "RESHAPE") or widths[op["inputs"][0]] != widths[tensor]:
                return name
            tensor = op["inputs"][0]
        return name

    def op_ends(self) -> dict[str, str]:
        """Name of what each op behind the last ones with a kernel writes -> the op, from the outputs back."""
        names = {detail["index"]: detail["name"] for detail in self._interpreter.get_tensor_details()}
        makers = {tensor: op for op in self._plain_ops() for tensor in op["outputs"]}
        tensors, found = [detail["index"] for detail in self.outputs.values()], dict[str, str]()
        while tensors:
            op = makers.get(tensors.pop())
            if op is not None and op["op_name"] not in KERNEL_AXES:
                found |= {names[tensor]: op["op_name"] for tensor in op["outputs"]}
                tensors.extend(op["inputs"])
        return found

    def dense_inputs(self) -> dict[str, int]:
        """Name of what each dense layer writes -> the number of its inputs."""
        details = {detail["index"]: detail for detail in self._interpreter.get_tensor_details()}
        dense = (op for op in self._plain_ops() if op["op_name"] == "FULLY_CONNECTED")
        return {details[op["outputs"][0]]["name"]: int(details[op["inputs"][1]]["shape"][-1]) for op in dense}

    def kernels(self) -> dict[str, tuple[np.ndarray, int]]:
        """Name -> values and axis of the output channels, of every constant that an op multiplies its input by."""
        details = {detail["index"]: detail for detail in self._interpreter.get_tensor_details()}
        written = {index for op in self._plain_ops() for index in op["outputs"]}
        written |= {detail["index"] for detail in self.inputs.values()}
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
        batches = [(detail["index"], np.zeros(detail["shape"], detail["dtype"])) for detail in self.inputs.values()]
        times = []
        for _ in range(runs + 2):
            start = time.perf_counter()
            for index, batch in batches:
                self._interpreter.set_tensor(index, batch)
            self._interpreter.invoke()
            for detail in self.outputs.values():
                self._interpreter.get_tensor(detail["index"])
            times.append(time.perf_counter() - start)
        return 1000 * float(np.median(times[2:]))

    def _plain_ops(self) -> list[dict]:
        """The ops of the file, which stay listed when a delegate has taken them."""
        return [op for op in self._interpreter._get_ops_details() if op["op_name"] != DELEGATE]


def _only_signature(interpreter) -> dict[str, dict[str, int]]:
    """Side -> name -> index of the tensor, of a file with one signature; others name nothing."""
    signatures = list(interpreter._get_full_signature_list().values())
    return signatures[0] if len(signatures) == 1 else {}


def _named(details: list[dict], names: dict[str, int]) -> dict[str, dict]:
    """Tensors by their name in the signature, else in the graph."""
    known = {index: name for name, index in names.items()}
    return {known.get(detail["index"], detail["name"]): detail for detail in details}


def _only(details: dict[str, dict], what: str) -> dict:
    if len(details) != 1:
        advice = "; name one, as LiteRTModel(file, answer=NAME)" if what == "outputs" and details else ""
        raise InvalidValueError(f"the file has {len(details)} {what} ({', '.join(details)}); one is needed{advice}")
    return next(iter(details.values()))


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
