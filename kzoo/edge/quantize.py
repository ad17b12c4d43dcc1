"""Quantizing LiteRT files with litert-quantizer."""

import contextlib
import io
import os
import warnings

import numpy as np


def quantize_int8(content: bytes, calibration: np.ndarray) -> bytes:
    """Quantizes weights, activations, input and output of a float32 file to 8 bits.

    Args:
        content: the float32 file.
        calibration: float32 images (n, height, width, channels) that the file's input takes.

    Returns:
        The int8 file. Ops that have no integer kernel (REDUCE_MAX) stay float between conversions.
    """
    from litert_quantizer import quantizer, recipe

    from kzoo.edge.runtime import LiteRTModel

    lite = LiteRTModel(content)
    name = lite.input["name"].removeprefix("serving_default_").split(":")[0]
    batch = lite.input_shape[0]
    batches = [np.resize(calibration[i : i + batch], lite.input_shape) for i in range(0, len(calibration), batch)]
    quantize = quantizer.Quantizer(content, recipe.static_wi8_ai8())
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # its warnings and its bar
        warnings.simplefilter("ignore")
        ranges = quantize.calibrate(
            {"serving_default": [{name: batch} for batch in batches]}, num_threads=os.cpu_count()
        )
        # the quantizer averages ranges over images, which is right inside; pixels have their own limits
        ranges[lite.input["name"]] = {"min": calibration.min(keepdims=True), "max": calibration.max(keepdims=True)}
        _widen_dead_ranges(ranges)
        result = quantize.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def quantize_int8_dynamic(content: bytes) -> bytes:
    """Quantizes the weights of a float32 file to 8 bits; activations are quantized as the file runs.

    Depthwise convolutions stay float: XNNPACK has no kernel for them with float activations, and each would cut
    its partition in two.
    """
    from litert_quantizer import quantizer, recipe

    keep_float = {
        "regex": ".*",
        "operation": recipe.TFLOperationName.DEPTHWISE_CONV_2D,
        "algorithm_key": recipe.AlgorithmName.NO_QUANTIZE,
    }
    quantize = quantizer.Quantizer(content, [*recipe.dynamic_wi8_afp32(), keep_float])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = quantize.quantize(enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _widen_dead_ranges(ranges: dict[str, dict]) -> None:
    """Gives tensors that were constant on all calibration images a range of at least one.

    A ReLU that never fires would get a scale of about 1e-12, with which XNNPACK refuses to run. CBAM's hidden
    layer has one unit at 16 channels, so this is common there. Zero stays exactly zero at any scale.
    """
    for values in ranges.values():
        if values and np.all(np.asarray(values["max"]) - np.asarray(values["min"]) < 1e-6):
            values["max"] = np.asarray(values["min"]) + np.float32(1)
