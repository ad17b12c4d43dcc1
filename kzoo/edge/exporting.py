"""Export to LiteRT: static batch, built-in ops only, checked against Keras before the file is kept."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import keras
import numpy as np

from kzoo.edge.arguments import (
    add_heatmap,
    check_card,
    check_images,
    check_io,
    check_is_model,
    check_model,
    check_options,
    check_path,
    check_reference,
)
from kzoo.edge.card import Card
from kzoo.edge.compare import Truth
from kzoo.edge.convert import convert
from kzoo.edge.export_report import ExportReport
from kzoo.edge.precisions import PRECISIONS
from kzoo.edge.source import Source
from kzoo.errors import ExportError, InvalidValueError, check_choice
from kzoo.files import ensure_writable
from kzoo.layers.target import for_gpu
from kzoo.models.inception import without_auxiliary
from kzoo.needs import need_tensorflow_backend
from kzoo.precisions import Io, Target

AUTO = "auto"
AUTO_ERROR = 0.1
_log = logging.getLogger("kzoo")


def export(
    model: keras.Model,
    path: str | Path,
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    batch_size: int = 1,
    *,
    evaluation: tuple[np.ndarray, Truth] | None = None,
    card: Card | None = None,
    class_names: Sequence[str] | None = None,
    threads: Sequence[int] = (),
    find_layers: bool = False,
    max_error: float = AUTO_ERROR,
    reference: keras.Model | None = None,
    io: Io | None = None,
    target: Target = "cpu",
    auxiliary: bool = False,
    heatmap: bool = False,
) -> ExportReport:
    """Writes `model` as a LiteRT file and proves that it computes what Keras computes.

    The file has a static batch and TFLite built-in ops only. A card beside it, `model.tflite.json`, tells what to
    feed it and what its answers mean; `kzoo predict model.tflite` reads it.

    Args:
        model: any functional model of images; fold it first (`kzoo.fold_batch_norm`) to be sure that no
            normalisation is left. Several outputs, as `kzoo.pyramid` gives, keep the names of their dict in the
            file's signature, and each is compared; so are several inputs.
        path: path that ends in `.tflite`. An existing file is replaced once the new one has passed.
        precision: name in `kzoo.edge.PRECISIONS`, or `"auto"`: the fastest here whose `relative_error` is at most
            `max_error`. Where the calibration images span 0 to 255, the input of `"int8"` is the pixel minus 128.
        calibration: images (n, height, width, channels) of 0 to 255, needed for `"int8"` and `"int16x8"`, which take
            the ranges of their activations from them: 100 or more from the training set. The first 16 also serve
            to compare the file with Keras; without any, noise does. Of a model with several inputs a dict, input
            name -> array.
        batch_size: number of images per invocation.
        evaluation: images, and their labels (n,) or masks (n, height, width) of class indices, void as 255 or any
            index that is no class; of one sigmoid or logit 0 or 1, of several sigmoids 0 and 1 for each class,
            (n, classes); of a detector a dict of `boxes` (n, most, 4), relative to the images, and `classes`
            (n, most), -1 for no box, as `kzoo.data.detection_sets.load_boxes` gives them. Accuracy, mean IoU or
            average precision of Keras and file go into the report.
        card: meaning of the output, with names of the classes, and the way from pictures to images.
            Default: what the model carries (`kzoo.with_classes`) or tells by its last operation.
        class_names: names of the classes alone, where there is no card.
        threads: numbers of threads to time the file with, one after the other.
        find_layers: whether to find the tensors whose error is largest.
        max_error: largest relative error that `"auto"` accepts.
        reference: model that the file has to agree with, where `model` was made of it by rewrites such as
            `kzoo.fold_batch_norm`: then these are checked too. Default: `model`.
        io: type of input and output of files that compute in 8-bit integers: `"int8"`, as is the default, or
            `"uint8"` or `"float32"`, which browsers and MediaPipe take. The numbers between are the same; a softmax
            behind them is not rounded in `"float32"`. See `kzoo.edge.with_io`. Boxes of a detector leave as float32
            where nothing is said, and as 256 places along the image in `"int8"` and `"uint8"`.
        target: what the file is for. `"gpu"` takes the form that mobile GPUs run whole where it costs the CPU
            something: masks of shifted windows and of neighbourhoods are written out for every head (Swin and NAT,
            with `batch_size=1`), which makes the file larger. What is refused all the same stands in the report; it
            stays in the file, and is left to the CPU as that runs. Layers of Keras itself stay as they are.
        auxiliary: whether auxiliary heads, which serve training alone, become outputs of the file too.
        heatmap: whether a classifier that ends in global average pooling and one dense layer gives a map for each
            class too, as the output `heatmap` behind `answer`: see `kzoo.surgery.with_heatmap`.

    Returns:
        An `ExportReport`.

    Raises:
        BackendError: TensorFlow, whose converter does it, is not installed or not what Keras computes with.
        InvalidValueError: unknown precision, `io` that it does not have, no `.tflite` suffix, images of the wrong
            shape, range or number, or a model without a heat map.
        OutputError: the directory cannot be written.
        ExportError: the model needs another op, or the file disagrees with Keras. No file is left.

    Example:
        >>> report = kzoo.export(model, "resnet50.tflite", precision="int8", calibration=train_images[:200])
        >>> report.xnnpack_partitions, report.size_bytes
    """
    need_tensorflow_backend("exporting")
    path = check_path(path)
    check_is_model(model)
    automatic = precision == AUTO
    names = _possible(calibration, slow=False) if automatic else (precision,)
    check_options(names, batch_size, threads, max_error, others=(AUTO,))
    images = dict(calibration=calibration, evaluation=evaluation)
    told = dict(card=card, class_names=class_names, io=io, target=target, auxiliary=auxiliary, heatmap=heatmap)
    source = _open(model, reference, names, batch_size, path.parent, **images, **told)
    file = None
    if automatic:
        precision, file = source.fastest(names, max_error)
    return source.write(precision, path, threads, find_layers, file)


def export_each(
    model: keras.Model,
    directory: str | Path,
    precisions: Sequence[str] | None = None,
    calibration: np.ndarray | None = None,
    batch_size: int = 1,
    *,
    name: str | None = None,
    evaluation: tuple[np.ndarray, Truth] | None = None,
    card: Card | None = None,
    class_names: Sequence[str] | None = None,
    threads: Sequence[int] = (),
    find_layers: bool = False,
    reference: keras.Model | None = None,
    io: Io | None = None,
    target: Target = "cpu",
    auxiliary: bool = False,
    heatmap: bool = False,
) -> Iterator[tuple[str, ExportReport | ExportError]]:
    """Writes `NAME_PRECISION.tflite` for several precisions, from one conversion.

    Args:
        precisions: names in `kzoo.edge.PRECISIONS`; default: all, without `calibration` those that need none.
        name: beginning of the files' names; default: the model's name.

    The other arguments are those of `kzoo.export`.

    Returns:
        An iterator that makes one file after the other, and yields its precision with its report, or with the error
        of a file that could not be made or disagrees with Keras, and is missing.

    Raises:
        ExportError: the model cannot be converted. The other errors are those of `kzoo.export`.

    Example:
        >>> for precision, report in export_each(model, "files", calibration=train_images[:200]):
        ...     print(precision, report)
    """
    need_tensorflow_backend("exporting")
    check_is_model(model)
    directory = Path(directory)
    if name is not None and Path(name).name != name:
        raise InvalidValueError(f"name={name!r} must be the beginning of a file name")
    names = _possible(calibration) if precisions is None else tuple(precisions)
    check_options(names, batch_size, threads)
    images = dict(calibration=calibration, evaluation=evaluation)
    told = dict(card=card, class_names=class_names, io=io, target=target, auxiliary=auxiliary, heatmap=heatmap)
    source = _open(model, reference, names, batch_size, directory, **images, **told)

    def results() -> Iterator[tuple[str, ExportReport | ExportError]]:
        for precision in names:
            path = directory / f"{name or model.name}_{precision}.tflite"
            result: ExportReport | ExportError
            try:
                result = source.write(precision, path, threads, find_layers)
            except ExportError as error:
                result = error
            yield precision, result

    return results()


def export_all(
    model: keras.Model,
    directory: str | Path,
    precisions: Sequence[str] | None = None,
    calibration: np.ndarray | None = None,
    **options,
) -> dict[str, ExportReport]:
    """Writes `NAME_PRECISION.tflite` for several precisions, from one conversion.

    Args:
        model: model that `kzoo.export` takes.
        directory: directory of the files; made if need be.
        precisions: names in `kzoo.edge.PRECISIONS`; default: all, without `calibration` those that need none.
        calibration: as in `kzoo.export`.
        options: the other options of `kzoo.edge.export_each`.

    Returns:
        precision -> report, in the order of `precisions`. A precision that fails is logged with its reason, and its
        file is missing.

    Raises:
        ExportError: all of them failed. The other errors are those of `kzoo.export`.

    Example:
        >>> reports = kzoo.export_all(model, "files", ("float32", "int8"), calibration=train_images[:200])
        >>> {precision: report.relative_error for precision, report in reports.items()}
    """
    reports, failures = {}, []
    for precision, result in export_each(model, directory, precisions, calibration, **options):
        if isinstance(result, ExportReport):
            reports[precision] = result
        else:
            failures.append(str(result))
            _log.warning("%s", result)
    if not reports:
        raise ExportError("; ".join(failures))
    return reports


def _possible(calibration, slow: bool = True) -> tuple[str, ...]:
    return tuple(
        name
        for name, precision in PRECISIONS.items()
        if (slow or not precision.slow) and (calibration is not None or not precision.calibrated)
    )


def _open(
    model,
    reference,
    precisions,
    batch_size,
    directory,
    *,
    calibration,
    evaluation,
    card,
    class_names,
    io,
    target,
    auxiliary,
    heatmap,
) -> Source:
    """Checks every argument, then converts."""
    if not auxiliary:
        model = without_auxiliary(model)
    if heatmap:
        model, reference = add_heatmap(model, reference)
    check_io(io, precisions)
    check_choice("target", target, get_args(Target))
    shapes = check_model(model)
    reference = check_reference(model, reference)
    card = check_card(model, card, class_names)
    calibration, evaluation = check_images(model, shapes, card, precisions, calibration, evaluation)
    ensure_writable(directory, need_bytes=4 * model.count_params())
    _log.info("converting %s", model.name)
    with for_gpu(target == "gpu"):
        content = convert(model, batch_size)
    return Source(model, reference, card, content, calibration, evaluation, io)
