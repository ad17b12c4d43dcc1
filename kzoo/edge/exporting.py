"""Export to LiteRT: static batch, built-in ops only, checked against Keras before the file is kept."""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from kzoo.edge.arguments import check_images, check_model, check_options, check_path
from kzoo.edge.card import Card, card_path, write_card
from kzoo.edge.compare import agreement, errors, scores
from kzoo.edge.convert import convert
from kzoo.edge.precisions import PRECISIONS
from kzoo.edge.quantize import Ranges, find_ranges, layer_errors, quantize
from kzoo.edge.report import WORST_LAYERS, ExportReport
from kzoo.edge.runtime import LiteRTModel
from kzoo.errors import ExportError
from kzoo.files import atomic_path, ensure_writable
from kzoo.graph import count_macs
from kzoo.models.inception import without_auxiliary

AUTO = "auto"
AUTO_ERROR = 0.1
VERIFY_IMAGES = 16
SLOW_IMAGES = 2
_log = logging.getLogger("kzoo")


def export(
    model: keras.Model,
    path: str | Path,
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    batch_size: int = 1,
    *,
    evaluation: tuple[np.ndarray, np.ndarray] | None = None,
    card: Card | None = None,
    threads: Sequence[int] = (),
    find_layers: bool = False,
    max_error: float = AUTO_ERROR,
) -> ExportReport:
    """Writes `model` as a LiteRT file and proves that it computes what Keras computes.

    The file has a static batch and TFLite built-in ops only. A card beside it, `model.tflite.json`, tells what to
    feed it and what its answers mean; `kzoo predict model.tflite` reads it.

    Args:
        model: any functional model with one image input and one output; fold it first
            (`kzoo.fold_batch_norm`) to be sure that no normalisation is left. Auxiliary heads, which serve
            training alone, are left out.
        path: ends in `.tflite`. An existing file is replaced once the new one has passed.
        precision: a name in `kzoo.edge.PRECISIONS`, or `"auto"`: the fastest here whose `relative_error` is at most
            `max_error`. Where the calibration images span 0 to 255, the input of `"int8"` is the pixel minus 128.
        calibration: images (n, height, width, channels) of 0 to 255, needed for `"int8"` and `"int16x8"`, which take
            the ranges of their activations from them: 100 or more from the training set. The first 16 also serve
            to compare the file with Keras; without any, noise does.
        batch_size: images per invocation.
        evaluation: images, and their labels (n,) or masks (n, height, width) of class indices, void as 255 or any
            index that is no class: accuracy or mean IoU of Keras and file go into the report.
        card: names of the classes, and how pictures are brought to the model's size.
        threads: numbers of threads to time the file with, one after the other.
        find_layers: whether to find the tensors whose error is largest.
        max_error: for `"auto"`.

    Returns:
        An `ExportReport`.

    Raises:
        InvalidValueError: unknown precision, no `.tflite` suffix, images of the wrong shape, range or number.
        OutputError: the directory cannot be written.
        ExportError: the model needs another op, or the file disagrees with Keras. No file is left.

    Example:
        >>> report = kzoo.export(model, "resnet50.tflite", precision="int8", calibration=train_images[:200])
        >>> report.xnnpack_partitions, report.size_bytes
    """
    path = check_path(path)
    model = without_auxiliary(model)
    automatic = precision == AUTO
    names = _possible(calibration, slow=False) if automatic else (precision,)
    check_options(names, batch_size, threads, max_error, others=(AUTO,))
    source = _open(model, names, calibration, batch_size, evaluation, path.parent)
    if automatic:
        precision = source.fastest(names, max_error)
    return source.write(precision, path, card, threads, find_layers)


def export_all(
    model: keras.Model,
    directory: str | Path,
    precisions: Sequence[str] | None = None,
    calibration: np.ndarray | None = None,
    batch_size: int = 1,
    *,
    evaluation: tuple[np.ndarray, np.ndarray] | None = None,
    card: Card | None = None,
    threads: Sequence[int] = (),
    find_layers: bool = False,
) -> dict[str, ExportReport]:
    """Writes `NAME_PRECISION.tflite` for several precisions, from one conversion. NAME is the model's.

    Args:
        precisions: names in `kzoo.edge.PRECISIONS`; default: all, without `calibration` those that need none.

    The other arguments are those of `kzoo.export`.

    Returns:
        precision -> report, in the order of `precisions`. A precision that fails is logged with its reason, and its
        file is missing.

    Raises:
        ExportError: all of them failed. The other errors are those of `kzoo.export`.

    Example:
        >>> reports = kzoo.export_all(model, "files", ("float32", "int8"), calibration=train_images[:200])
        >>> {precision: report.relative_error for precision, report in reports.items()}
    """
    model = without_auxiliary(model)
    names = _possible(calibration) if precisions is None else tuple(precisions)
    check_options(names, batch_size, threads)
    source = _open(model, names, calibration, batch_size, evaluation, Path(directory))
    reports, failures = {}, []
    for precision in names:
        path = Path(directory) / f"{model.name}_{precision}.tflite"
        try:
            reports[precision] = source.write(precision, path, card, threads, find_layers)
        except ExportError as error:
            failures.append(str(error))
            _log.warning("%s", error)
    if not reports:
        raise ExportError("; ".join(failures))
    return reports


def _possible(calibration, slow: bool = True) -> tuple[str, ...]:
    return tuple(
        name
        for name, precision in PRECISIONS.items()
        if (slow or not precision.slow) and (calibration is not None or not precision.calibrated)
    )


def _open(model, precisions, calibration, batch_size, evaluation, directory) -> "_Source":
    """Checks every argument, then converts."""
    shape = check_model(model)
    calibration = check_images(model, shape, precisions, calibration, evaluation)
    ensure_writable(directory, need_bytes=4 * model.count_params())
    _log.info("converting %s", model.name)
    content = convert(model, (batch_size, *shape))
    return _Source(model, content, calibration, evaluation)


@dataclass(frozen=True)
class _Source:
    """A converted model, of which files in several precisions are made."""

    model: keras.Model
    content: bytes
    calibration: np.ndarray | None
    evaluation: tuple[np.ndarray, np.ndarray] | None

    @functools.cached_property
    def ranges(self) -> Ranges:
        return find_ranges(self.content, self.calibration)

    @functools.cached_property
    def images(self) -> np.ndarray:
        return _noise(self.model.input_shape[1:]) if self.calibration is None else self.calibration[:VERIFY_IMAGES]

    @functools.cached_property
    def expected(self) -> np.ndarray:
        """What Keras says of the images."""
        return keras.ops.convert_to_numpy(self.model(self.images, training=False)).astype("float32")

    @functools.cached_property
    def keras_scores(self) -> dict[str, float]:
        images, labels = self.evaluation
        return scores(lambda batch: self.model.predict_on_batch(batch), images, labels)

    def make(self, precision: str) -> tuple[bytes, str]:
        """The file, and the policy of its integers."""
        return quantize(self.content, precision, self.ranges if PRECISIONS[precision].calibrated else None)

    def compared(self, precision: str) -> slice:
        return slice(SLOW_IMAGES if PRECISIONS[precision].slow else VERIFY_IMAGES)

    def fastest(self, precisions: Sequence[str], max_error: float) -> str:
        """The precision of least latency among those whose error is small enough."""
        latencies, found = {}, {}
        for precision in precisions:
            _log.info("%s: measuring error and latency", precision)
            lite = LiteRTModel(self.make(precision)[0])
            found[precision] = errors(lite.predict(self.images), self.expected)["relative_error"]
            if found[precision] <= max_error:
                latencies[precision] = lite.latency_ms()
        if not latencies:
            told = ", ".join(f"{name} {error:.2g}" for name, error in found.items())
            raise ExportError(f"no precision of {self.model.name} keeps the relative error at {max_error:g}: {told}")
        return min(latencies, key=latencies.get)

    def write(
        self, precision: str, path: Path, card: Card | None, threads: Sequence[int], find_layers: bool
    ) -> ExportReport:
        """Writes one file and its card, if it agrees with Keras."""
        _log.info("%s: quantizing, and comparing with Keras", precision)
        content, policy = self.make(precision)
        lite = LiteRTModel(content)
        images, expected = self.images[self.compared(precision)], self.expected[self.compared(precision)]
        outputs = lite.predict(images)
        verified_on = f"{len(images)} {'images of noise' if self.calibration is None else 'calibration images'}"
        measured = errors(outputs, expected)
        if not measured["relative_error"] <= PRECISIONS[precision].bound:  # a NaN fails too
            raise ExportError(
                f"the {precision} file of {self.model.name} disagrees with Keras: relative error "
                f"{measured['relative_error']:.2g} on {verified_on}, accepted {PRECISIONS[precision].bound:g}; "
                "nothing was written"
            )
        report = ExportReport(
            path=str(path),
            precision=precision,
            size_bytes=len(content),
            input_shape=lite.input_shape,
            ops=lite.op_histogram(),
            xnnpack_partitions=lite.xnnpack_partitions(),
            ops_outside_xnnpack=lite.ops_outside_xnnpack(),
            policy=policy,
            macs=count_macs(self.model),
            verified_on=verified_on,
            **measured,
            agreement=agreement(outputs, expected),
            scores=self._scores(precision, lite),
            layers=self._worst_layers(precision, content) if find_layers else (),
            latency_ms={count: LiteRTModel(content, count).latency_ms() for count in threads},
        )
        with atomic_path(card_path(path)) as partial_card, atomic_path(path) as partial:
            partial.write_bytes(content)
            write_card(card or Card(), self.model, precision, content, partial_card)
        return report

    def _scores(self, precision: str, lite: LiteRTModel) -> dict[str, dict[str, float]]:
        if self.evaluation is None:
            return {}
        _log.info("%s: evaluating on %d images", precision, len(self.evaluation[0]))
        found = scores(lite.predict, *self.evaluation)
        return {metric: {"keras": value, "file": found[metric]} for metric, value in self.keras_scores.items()}

    def _worst_layers(self, precision: str, content: bytes) -> tuple[tuple[str, float], ...]:
        if precision == "float32":
            return ()
        batch = LiteRTModel(self.content).input_shape[0]
        found = layer_errors(self.content, content, np.resize(self.images, (batch, *self.images.shape[1:])))
        return tuple(sorted(found.items(), key=lambda item: -item[1])[:WORST_LAYERS])


def _noise(shape: tuple[int, int, int]) -> np.ndarray:
    """Random pixels of rising contrast: on full contrast alone a trained classifier is sure, whatever the file."""
    pixels = np.random.default_rng(0).integers(0, 256, (VERIFY_IMAGES, *shape))
    contrast = np.linspace(0, 1, VERIFY_IMAGES)[:, None, None, None]
    return (127.5 + (pixels - 127.5) * contrast).astype("float32")
