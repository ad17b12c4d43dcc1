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
        result = quantize.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)
