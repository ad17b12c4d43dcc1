"""A converted model, and the files in several precisions that are made of it and compared with it."""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from kzoo.computable import why_not_computed
from kzoo.edge.card import Card, card_path, describe, write_card
from kzoo.edge.compare import Truth, agreement, judged, output_errors, scores, scores_of_keras
from kzoo.edge.export_report import WORST_LAYERS, ExportReport
from kzoo.edge.gpu import gpu_refuses
from kzoo.edge.interface import with_float_outputs, with_io
from kzoo.edge.precisions import PRECISIONS
from kzoo.edge.quantize import Ranges, find_ranges, layer_errors, quantize
from kzoo.edge.runtime import LiteRTModel
from kzoo.edge.tensors import input_names, run
from kzoo.errors import ExportError, InvalidValueError, explain
from kzoo.files import atomic_path
from kzoo.graph import count_macs
from kzoo.last_operation import BOXES
from kzoo.precisions import Io

VERIFY_IMAGES = 16
SLOW_IMAGES, SLOW_MACS = 2, 8e9  # at least so many, and more of a model that takes no more multiply-adds for them
DYNAMIC_ERROR = 0.1  # of an int8_dynamic file, from which on it is looked whether int8_weights does better
_log = logging.getLogger("kzoo")


class Candidate(NamedTuple):
    """A file that is not on disk yet, the policy of its integers, and the interpreter that runs it."""

    content: bytes
    policy: str
    lite: LiteRTModel


@dataclass(frozen=True)
class Source:
    """A converted model, of which files in several precisions are made, and their card.

    Attributes:
        model: model that was converted.
        reference: model that the files are compared with.
        card: card of the files.
        content: the float32 file.
        calibration: input name -> images; None where there are none.
        evaluation: as in `kzoo.export`.
        io: type of input and output of integer files; None: the integers that they compute with, but float32 for
            the boxes of a detector beside 8-bit integers, which are 256 places along an image.
    """

    model: keras.Model
    reference: keras.Model
    card: Card
    content: bytes
    calibration: dict[str, np.ndarray] | None
    evaluation: tuple[np.ndarray, Truth] | None
    io: Io | None = None

    @functools.cached_property
    def ranges(self) -> Ranges:
        """Ranges of the activations; a precision that is calibrated needs images for them."""
        if self.calibration is None:
            raise InvalidValueError("no calibration images were given, which the ranges of activations need")
        return find_ranges(self.content, self.calibration)

    @functools.cached_property
    def images(self) -> dict[str, np.ndarray]:
        """Input name -> images to compare on."""
        return images_to_compare(self.model, self.calibration)

    @functools.cached_property
    def expected(self) -> dict[str, np.ndarray]:
        """Output name -> what Keras says of the images."""
        return keras_outputs(self.reference, self.images)

    @functools.cached_property
    def answer(self) -> str:
        """Name of the output that the card is about, or of the only one."""
        return self.card.answer or next(iter(self.expected))

    @functools.cached_property
    def keras_scores(self) -> dict[str, float]:
        """What Keras makes of the images for evaluation; nothing without them."""
        if self.evaluation is None:
            return {}
        return scores_of_keras(self.reference, self.answer, *self.evaluation, self.card.output)

    def make(self, precision: str) -> Candidate:
        """The file in one precision.

        Raises:
            ExportError: the quantizer fails, or makes a file that the interpreter does not run.
        """
        try:
            content, policy = quantize(
                self.content, precision, self.ranges if PRECISIONS[precision].calibrated else None
            )
            if self.io:
                content = with_io(content, self.io)
            elif self.card.output.detects and PRECISIONS[precision].activation_bits == 8:
                content = with_float_outputs(content, [BOXES])
            return Candidate(content, policy, LiteRTModel(content))
        except Exception as error:  # it raises what it likes
            raise ExportError(
                f"{self.model.name} cannot be quantized to {precision}: {explain(error)}; nothing was written"
            ) from error

    @functools.cached_property
    def macs(self) -> int:
        return count_macs(self.model)

    def compared(self, precision: str) -> slice:
        """The images on which a file of this precision is compared with Keras."""
        return slice(max(SLOW_IMAGES, int(SLOW_MACS / max(self.macs, 1))) if PRECISIONS[precision].slow else None)

    def fastest(self, precisions: Sequence[str], max_error: float) -> tuple[str, Candidate]:
        """The precision of least latency among those whose error is small enough, and its file."""
        best, found = None, {}
        for precision in precisions:
            _log.info("%s: measuring error and latency", precision)
            try:
                file = self.make(precision)
            except ExportError as error:
                _log.warning("%s", error)
                continue
            errors = errors_by_output(file.lite.predict_each(self.images), self.expected)
            found[precision] = errors[worst_output(errors)]["relative_error"]
            if found[precision] <= max_error:
                latency = file.lite.latency_ms()
                if best is None or latency < best[0]:
                    best = latency, precision, file
        if best is None:
            told = ", ".join(f"{name} {error:.2g}" for name, error in found.items())
            raise ExportError(f"no precision of {self.model.name} keeps the relative error at {max_error:g}: {told}")
        return best[1:]

    def write(
        self,
        precision: str,
        path: Path,
        threads: Sequence[int],
        find_layers: bool,
        file: Candidate | None = None,
    ) -> ExportReport:
        """Writes one file, which may have been made before, and its card, if it agrees with Keras."""
        _log.info("%s: quantizing, and comparing with Keras", precision)
        content, policy, lite = file or self.make(precision)
        found = self._scores(precision, lite)
        values = {metric: each["file"] for metric, each in found.items()}
        tested = 0 if self.evaluation is None else len(self.evaluation[0])
        content, told = describe(content, self.card, self.model, precision, values, tested)
        lite = LiteRTModel(content)
        chosen = self.compared(precision)
        images = {name: array[chosen] for name, array in self.images.items()}
        expected = {name: array[chosen] for name, array in self.expected.items()}
        outputs = lite.predict_each(images)
        count = len(next(iter(images.values())))
        verified_on = f"{count} {'images of noise' if self.calibration is None else 'calibration images'}"
        errors = errors_by_output(outputs, expected)
        worst = worst_output(errors)
        distances = errors[worst]
        if not distances["relative_error"] <= PRECISIONS[precision].bound:  # a NaN fails too
            named = f"output {worst!r} of the" if len(errors) > 1 else "the"
            raise ExportError(
                f"{named} {precision} file of {self.model.name} disagrees with Keras: relative error "
                f"{distances['relative_error']:.2g} on {verified_on}, accepted {PRECISIONS[precision].bound:g}; "
                "nothing was written"
            )
        if precision == "int8_dynamic" and distances["relative_error"] > DYNAMIC_ERROR:
            self._say_if_weights_are_better(distances["relative_error"], images, expected)
        report = ExportReport(
            path=str(path),
            precision=precision,
            size_bytes=len(content),
            input_shape=tuple(int(size) for size in next(iter(lite.inputs.values()))["shape"]),
            io=lite.outputs[self.answer]["dtype"].__name__,
            ops=lite.op_histogram(),
            xnnpack_partitions=lite.xnnpack_partitions(),
            ops_outside_xnnpack=lite.ops_outside_xnnpack(),
            policy=policy,
            macs=self.macs,
            verified_on=verified_on,
            **distances,
            outputs=errors if len(errors) > 1 else {},
            agreement=agreement(outputs, expected, self.answer, self.card.output),
            scores=found,
            layers=self._worst_layers(precision, content) if find_layers else (),
            latency_ms={count: LiteRTModel(content, count).latency_ms() for count in threads},
            gpu_refuses=gpu_refuses(content),
        )
        with atomic_path(card_path(path)) as partial_card, atomic_path(path) as partial:
            partial.write_bytes(content)
            write_card(told, content, partial_card)
        return report

    def _scores(self, precision: str, lite: LiteRTModel) -> dict[str, dict[str, float]]:
        if self.evaluation is None:
            return {}
        _log.info("%s: evaluating on %d images", precision, len(self.evaluation[0]))
        name = next(iter(lite.inputs))
        answer, output = self.answer, self.card.output

        def predict(batch: np.ndarray):
            return judged(lite.predict_each({name: batch}), answer, output)

        found = scores(predict, *self.evaluation, output)
        return {metric: {"keras": value, "file": found[metric]} for metric, value in self.keras_scores.items()}

    def _say_if_weights_are_better(self, error: float, images: dict, expected: dict) -> None:
        """Warns where the integers of the activations cost most of what a dynamic file loses."""
        errors = errors_by_output(self.make("int8_weights").lite.predict_each(images), expected)
        weights = errors[worst_output(errors)]["relative_error"]
        if weights < error / 2:
            _log.warning(
                "the int8_dynamic file of %s has a relative error of %.2g, and int8_weights, of the same size, one of "
                "%.2g: its activations do not bear 8 bits; take int8_weights",
                self.model.name,
                error,
                weights,
            )

    def _worst_layers(self, precision: str, content: bytes) -> tuple[tuple[str, float], ...]:
        if precision == "float32":
            return ()
        batch = LiteRTModel(self.content).batch_size
        images = {name: np.resize(array, (batch, *array.shape[1:])) for name, array in self.images.items()}
        found = layer_errors(self.content, content, images)
        return tuple(sorted(found.items(), key=lambda item: -item[1])[:WORST_LAYERS])


def images_to_compare(model: keras.Model, given: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Input name -> the first of the images that are given, or noise."""
    if given is not None:
        return {name: array[:VERIFY_IMAGES] for name, array in given.items()}
    names, tensors = input_names(model), model.inputs
    return {name: _noise(tuple(tensor.shape[1:])) for name, tensor in zip(names, tensors, strict=True)}


def keras_outputs(model: keras.Model, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Output name -> what Keras says of images.

    Raises:
        ExportError: the model cannot run.
    """
    try:
        return run(model, list(images.values()))
    except Exception as error:  # of any layer's call
        raise ExportError(
            f"{model.name} cannot run, so that no file can be compared with it: "
            f"{why_not_computed(error) or explain(error)}; nothing was written"
        ) from error


def errors_by_output(outputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Output name -> its distances to what Keras gives."""
    return {name: output_errors(outputs[name], values) for name, values in expected.items()}


def worst_output(errors: dict[str, dict[str, float]]) -> str:
    """Name of the output that is furthest from Keras'; one that is no number is further than all."""
    return max(errors, key=lambda name: np.nan_to_num(errors[name]["relative_error"], nan=np.inf))


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    """Random pixels of rising contrast: on full contrast alone a trained classifier is sure, whatever the file."""
    pixels = np.random.default_rng(0).integers(0, 256, (VERIFY_IMAGES, *shape))
    contrast = np.linspace(0, 1, VERIFY_IMAGES).reshape(-1, *(1 for _ in shape))
    return (127.5 + (pixels - 127.5) * contrast).astype("float32")
