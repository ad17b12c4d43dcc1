"""Export to ONNX and to SavedModel, checked against Keras by the runtime of each before anything is kept."""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import keras
import numpy as np

from kzoo.edge.arguments import (
    add_heatmap,
    check_card,
    check_images,
    check_is_model,
    check_model,
    check_options,
    check_path,
    check_reference,
)
from kzoo.edge.card import Card, card_path, tell, write_card
from kzoo.edge.compare import Truth, agreement, judged, scores, scores_of_keras
from kzoo.edge.convert import named_for_tensorflow
from kzoo.edge.format_report import FormatReport
from kzoo.edge.onnx_file import OnnxModel, need_onnx, write_onnx
from kzoo.edge.saved_model import SavedModel, check_folder, write_saved_model
from kzoo.edge.source import errors_by_output, images_to_compare, keras_outputs, worst_output
from kzoo.errors import ExportError, explain
from kzoo.files import atomic_folder, atomic_path, ensure_writable
from kzoo.graph import count_macs
from kzoo.models.inception import without_auxiliary
from kzoo.needs import need_tensorflow_backend

BOUND = 1e-5  # norm of the error over the norm of Keras' output: both compute in float32, and round
_log = logging.getLogger("kzoo")


class _Runner(Protocol):
    """A file that is opened."""

    inputs: dict[str, dict]
    outputs: dict[str, dict]
    ops: dict[str, int]
    runtime: str

    @property
    def signature(self) -> str | None: ...

    def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...


class _Format(NamedTuple):
    """A format: its name, what keeps a path of it once it has passed, what writes it, and what opens it."""

    name: str
    kept: Callable[[Path], contextlib.AbstractContextManager[Path]]
    write: Callable[[keras.Model, int | None, Path], None]
    open: Callable[[Path], _Runner]


ONNX = _Format("ONNX", atomic_path, write_onnx, OnnxModel)
SAVED_MODEL = _Format("SavedModel", atomic_folder, write_saved_model, SavedModel)


def export_onnx(
    model: keras.Model,
    path: str | Path,
    images: np.ndarray | Mapping[str, np.ndarray] | None = None,
    batch_size: int | None = None,
    *,
    evaluation: tuple[np.ndarray, Truth] | None = None,
    card: Card | None = None,
    class_names: Sequence[str] | None = None,
    reference: keras.Model | None = None,
    auxiliary: bool = False,
    heatmap: bool = False,
) -> FormatReport:
    """Writes `model` as an ONNX file and proves that onnxruntime computes with it what Keras computes.

    A card beside it, `model.onnx.json`, tells what to feed it and what its answers mean.

    Args:
        model: any functional model of images; it need not have been called. Several outputs and inputs keep their
            names, and each output is compared.
        path: path that ends in `.onnx`. An existing file is replaced once the new one has passed.
        images: images (n, height, width, channels) of 0 to 255, the first 16 of which serve to compare; without any,
            noise does. Of a model with several inputs a dict, input name -> array.
        batch_size: number of images per call; None for any.
        evaluation: as in `kzoo.export`; the next five too.
        card: see `kzoo.export`.
        class_names: see `kzoo.export`.
        reference: see `kzoo.export`.
        auxiliary: see `kzoo.export`.
        heatmap: see `kzoo.export`.

    Returns:
        A `FormatReport`.

    Raises:
        BackendError: tf2onnx, onnx or onnxruntime is not installed, or Keras does not compute with TensorFlow.
        InvalidValueError: no `.onnx` suffix, images of the wrong shape, range or number.
        OutputError: the directory cannot be written.
        ExportError: ONNX lacks an op of a layer, or the outputs differ from Keras' by more than 1e-5 of their norm.
            No file is left.

    Example:
        >>> kzoo.export_onnx(kzoo.fold_batch_norm(model), "resnet50.onnx").relative_error
        4.1e-07
    """
    need_tensorflow_backend("exporting")
    need_onnx()
    path = check_path(path, ".onnx")
    return _export(ONNX, model, path, images, batch_size, evaluation, card, class_names, reference, auxiliary, heatmap)


def export_saved_model(
    model: keras.Model,
    path: str | Path,
    images: np.ndarray | Mapping[str, np.ndarray] | None = None,
    batch_size: int | None = None,
    *,
    evaluation: tuple[np.ndarray, Truth] | None = None,
    card: Card | None = None,
    class_names: Sequence[str] | None = None,
    reference: keras.Model | None = None,
    auxiliary: bool = False,
    heatmap: bool = False,
) -> FormatReport:
    """Writes `model` as a SavedModel of TensorFlow, and proves that it computes what Keras computes without Keras.

    A card beside the folder `model`, `model.json`, tells what to feed it and what its answers mean. Its signature
    `serving_default` is what TensorFlow Serving and `keras.layers.TFSMLayer` call.

    Args:
        path: path of the folder, which is new, empty or a SavedModel; that is replaced once the new one has passed.

    The other arguments, returns and errors are those of `kzoo.export_onnx`; no other package is needed.

    Example:
        >>> kzoo.export_saved_model(model, "resnet50").relative_error
        1.2e-07
    """
    need_tensorflow_backend("exporting")
    path = Path(path)
    check_folder(path)
    return _export(
        SAVED_MODEL, model, path, images, batch_size, evaluation, card, class_names, reference, auxiliary, heatmap
    )


def _export(
    format: _Format,
    model,
    path: Path,
    images,
    batch_size,
    evaluation,
    card,
    class_names,
    reference,
    auxiliary,
    heatmap,
) -> FormatReport:
    check_is_model(model)
    check_options(("float32",), 1 if batch_size is None else batch_size, ())
    if not auxiliary:
        model = without_auxiliary(model)
    if heatmap:
        model, reference = add_heatmap(model, reference)
    shapes = check_model(model)
    reference = check_reference(model, reference)
    card = check_card(model, card, class_names)
    images, evaluation = check_images(model, shapes, card, ("float32",), images, evaluation)
    ensure_writable(path.parent, need_bytes=4 * model.count_params())
    kind = "images of noise" if images is None else "images"
    images = images_to_compare(model, images)
    verified_on = f"{len(next(iter(images.values())))} {kind}"
    with atomic_path(card_path(path)) as partial_card, format.kept(path) as file:
        _log.info("converting %s to %s", model.name, format.name)
        format.write(named_for_tensorflow(model), batch_size, file)
        try:
            runner = format.open(file)
        except Exception as error:  # a runtime raises what it likes
            raise ExportError(
                f"the {format.name} of {model.name} cannot be run: {explain(error)}; nothing was written"
            ) from error
        _log.info("comparing with Keras")
        expected, outputs = keras_outputs(reference, images), _predict(runner, images, batch_size)
        errors = errors_by_output(outputs, expected)
        worst = worst_output(errors)
        if not errors[worst]["relative_error"] <= BOUND:  # a NaN fails too
            named = f"output {worst!r} of the" if len(errors) > 1 else "the"
            raise ExportError(
                f"{named} {format.name} of {model.name} disagrees with Keras: relative error "
                f"{errors[worst]['relative_error']:.2g} on {verified_on}, accepted {BOUND:g}; nothing was written"
            )
        answer = card.answer or next(iter(expected))
        found = _scores(runner, reference, answer, card, evaluation, batch_size)
        measured = (
            {metric: values["file"] for metric, values in found.items()},
            len(evaluation[0]) if evaluation else 0,
        )
        content = _content(file)
        write_card(tell(runner, card, model, "float32", *measured), content, partial_card)
        return FormatReport(
            path=str(path),
            format=format.name,
            runtime=runner.runtime,
            size_bytes=len(content),
            input_shape=(batch_size, *next(iter(shapes.values()))),
            ops=runner.ops,
            macs=count_macs(model),
            verified_on=verified_on,
            **errors[worst],
            outputs=errors if len(errors) > 1 else {},
            agreement=agreement(outputs, expected, answer, card.output),
            scores=found,
        )


def _predict(runner: _Runner, images: Mapping[str, np.ndarray], batch_size: int | None) -> dict[str, np.ndarray]:
    """Outputs for images by input name; a last, smaller batch of a fixed size is filled up with others of them."""
    count = len(next(iter(images.values())))
    size = batch_size or count
    parts = []
    for start in range(0, count, size):
        left = min(size, count - start)
        rows = np.arange(start, start + size) % count
        outputs = runner.run({name: np.asarray(array[rows], "float32") for name, array in images.items()})
        parts.append({name: output[:left] for name, output in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _scores(
    runner: _Runner, reference, answer: str, card: Card, evaluation, batch_size
) -> dict[str, dict[str, float]]:
    """Metric -> what Keras and the file make of the images for evaluation; nothing without them."""
    if evaluation is None:
        return {}
    (name,) = runner.inputs
    images, labels = evaluation
    _log.info("evaluating on %d images", len(images))
    before = scores_of_keras(reference, answer, images, labels, card.output)

    def predict(batch: np.ndarray):
        return judged(_predict(runner, {name: batch}, batch_size), answer, card.output)

    found = scores(predict, images, labels, card.output)
    return {metric: {"keras": value, "file": found[metric]} for metric, value in before.items()}


def _content(path: Path) -> bytes:
    """The bytes of a file, or of all files of a folder in the order of their names."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return b"".join(file.read_bytes() for file in files)
