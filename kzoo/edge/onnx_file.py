"""ONNX files: written by Keras' own exporter through tf2onnx, run by onnxruntime. All three are an extra, `onnx`."""

import contextlib
import functools
import importlib.util
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from kzoo.edge.convert import is_scope_of, signature_of
from kzoo.edge.tensors import input_names, outputs_by_name, outputs_of
from kzoo.errors import BackendError, ExportError, explain

PACKAGES = ("tf2onnx", "onnx", "onnxruntime")


def need_onnx() -> None:
    """Raises `BackendError` unless what writes and runs ONNX files is installed; nothing is imported."""
    lacking = ", ".join(name for name in PACKAGES if importlib.util.find_spec(name) is None)
    if lacking:
        raise BackendError(f'exporting to ONNX needs {lacking}, not installed here; pip install -e ".[onnx]"')


def write_onnx(model: keras.Model, batch_size: int | None, path: Path) -> None:
    """Writes an ONNX file.

    Inputs and outputs have the names that LiteRT files give them, in the model's order, and a batch of any size is the
    dimension `batch`.

    Args:
        model: functional model with names that TensorFlow takes.
        batch_size: number of images per call; None for any.
        path: of the file.

    Raises:
        ExportError: an op has no counterpart in ONNX; the message names its layer.
    """
    import onnx

    _teach_erfc()
    try:
        with _quiet():
            model.export(path, format="onnx", verbose=False, input_signature=signature_of(model, batch_size))
    except Exception as error:  # of any layer's call, or of tf2onnx
        raise ExportError(f"cannot export {model.name} to ONNX: {explain(error)}") from error
    file = onnx.load(path)
    _check_ops(model, file)
    names = list(outputs_by_name(model))
    # TensorFlow sorts the keys of a dict
    _name_outputs(file, sorted(names) if isinstance(outputs_of(model), dict) else names)
    _reorder(file.graph.input, input_names(model))
    _reorder(file.graph.output, names)
    for tensor in (*file.graph.input, *file.graph.output):
        batch = tensor.type.tensor_type.shape.dim[0]
        if not batch.HasField("dim_value"):
            batch.dim_param = "batch"
    onnx.save(file, path)


@functools.cache
def _teach_erfc() -> None:
    """Tells tf2onnx, which does not know it, that erfc(x), of which Keras makes its GELU, is 1 - erf(x)."""
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, graph, node, **options):
            one = graph.make_const(f"{node.name}/one", np.array(1, "float32"))
            erf = graph.make_node("Erf", node.input, name=f"{node.name}/erf")
            node.type = "Sub"
            graph.replace_inputs(node, [one.output[0], erf.output[0]])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what tf2onnx and Keras tell on the way: an op that is not there is an error of ours."""
    log = logging.getLogger("tf2onnx")
    level = log.level
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        log.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            log.setLevel(level)


def _check_ops(model: keras.Model, file) -> None:
    """Raises `ExportError` for the first op that ONNX does not have; tf2onnx leaves such as they were."""
    import onnx

    for node in file.graph.node:
        if onnx.defs.has(node.op_type, domain=node.domain):
            continue
        scopes = node.name.split("/")
        names = (layer.name for layer in model.layers if any(is_scope_of(scope, layer.name) for scope in scopes))
        layer = next(names, None)
        where = f"layer {layer!r}" if layer else f"the operation {node.name!r}"
        raise ExportError(
            f"cannot export {model.name} to ONNX: {where} needs {node.op_type}, which ONNX does not have; replace the "
            "layer or export the part before it"
        )


def _name_outputs(file, names: Sequence[str]) -> None:
    """Gives the outputs of a file other names, in its order; what has such a name already is called otherwise."""
    new = {tensor.name: name for tensor, name in zip(file.graph.output, names, strict=True)}
    taken = {name: f"{name}_inside" for name in names if name not in new}
    for node in file.graph.node:
        for listed in (node.input, node.output):
            listed[:] = [new.get(name, taken.get(name, name)) for name in listed]
    for tensor in file.graph.output:
        tensor.name = new[tensor.name]


def _reorder(tensors, names: Sequence[str]) -> None:
    """Puts inputs or outputs into the order of names."""
    known = {tensor.name: type(tensor).FromString(tensor.SerializeToString()) for tensor in tensors}
    del tensors[:]
    tensors.extend(known[name] for name in names)


class OnnxModel:
    """An ONNX file in onnxruntime, on the processor.

    Args:
        path: of the file.

    Attributes:
        inputs, outputs: name -> shape (None for a batch of any size) and type, in the order of the file.

    Example:
        >>> OnnxModel("model.onnx").run({"image": images})["output_0"].shape
        (360, 10)
    """

    signature = None

    def __init__(self, path: str | Path):
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = {tensor.name: _detail(tensor) for tensor in self._session.get_inputs()}
        self.outputs = {tensor.name: _detail(tensor) for tensor in self._session.get_outputs()}
        self.ops = dict(Counter(node.op_type for node in onnx.load(path).graph.node).most_common())
        self.runtime = f"onnxruntime {onnxruntime.__version__}"

    def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Output name -> array, for one batch of the size that the file takes, input name -> array."""
        names = list(self.outputs)
        return dict(zip(names, self._session.run(names, dict(batch)), strict=True))


def _detail(tensor) -> dict:
    shape = [size if isinstance(size, int) else None for size in tensor.shape]
    return {"name": tensor.name, "shape": shape, "dtype": np.float32, "quantization": (0.0, 0)}
