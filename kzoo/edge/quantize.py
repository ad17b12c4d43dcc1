"""Quantizing float32 LiteRT files with litert-quantizer."""

import contextlib
import dataclasses
import io
import os
import re
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kzoo.edge.runtime import LiteRTModel
from kzoo.output import FILE_OPS
from kzoo.precisions import DENSE, DETECTOR, LINEAR, PRECISIONS, STATIC_POLICIES

LARGE_KERNEL = 32 * 1024**2  # bytes
SMALLEST_KERNEL = 1e-4  # range of an output channel over that of the largest
NO_SIGNAL = 1e-9  # signal over noise of a tensor that is zero on all images


class Ranges(NamedTuple):
    """Smallest and largest value of the tensors of a file, from calibration.

    Attributes:
        averaged: ranges averaged over batches of images, which few bits are spent best on; those of input and output
            are whole.
        whole: ranges of all images.
    """

    averaged: dict[str, dict]
    whole: dict[str, dict]


def find_ranges(content: bytes, images: Mapping[str, np.ndarray]) -> Ranges:
    """Runs a file on images and notes the range of every tensor.

    Args:
        content: a float32 file.
        images: input name -> float32 (n, ...), as the file takes them.
    """
    from litert_quantizer import calibrator, recipe, recipe_manager
    from litert_quantizer.utils import qsv_utils

    def update(known: dict, new: dict) -> dict:
        lowest, highest = (
            known.get("lowest", known.get("min", np.inf)),
            known.get("highest", known.get("max", -np.inf)),
        )
        whole = {"lowest": np.minimum(lowest, new["min"]), "highest": np.maximum(highest, new["max"])} if new else {}
        return qsv_utils.moving_average_update(known, new) | whole

    lite = LiteRTModel(content)
    batch, count = lite.batch_size, len(next(iter(images.values())))
    batches = [
        {name: np.resize(images[name][i : i + batch], detail["shape"]) for name, detail in lite.inputs.items()}
        for i in range(0, count, batch)
    ]
    rules = recipe_manager.RecipeManager()
    rules.load_quantization_recipe(recipe.static_wi8_ai8())
    with _quiet(), _maxima():
        mode = calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED  # three times as fast as the default, and equal
        run = calibrator.Calibrator(content, num_threads=os.cpu_count(), mode=mode, qsv_update_func=update)
        run.calibrate({"serving_default": batches}, rules)
    found = {tensor: values for tensor, values in run.get_model_qsvs().items() if values}
    averaged = {tensor: {"min": values["min"], "max": values["max"]} for tensor, values in found.items()}
    whole = {
        tensor: {"min": values.get("lowest", values["min"]), "max": values.get("highest", values["max"])}
        for tensor, values in found.items()
    }
    for detail in (*lite.inputs.values(), *lite.outputs.values()):  # nothing behind would make up for what is cut off
        averaged[detail["name"]] = dict(whole[detail["name"]])
    for ranges in (averaged, whole):
        for name, detail in lite.outputs.items():
            shares = lite.is_detector or FILE_OPS.get(lite.last_op(name)) in ("softmax", "sigmoid")
            if shares:  # those of other images may be larger
                shape = (1,) * len(detail["shape"])
                ranges[detail["name"]] = {"min": np.zeros(shape, "float32"), "max": np.ones(shape, "float32")}
        _widen_dead_ranges(ranges)
        ranges |= _kernel_ranges(lite)
    return Ranges(averaged, whole)


def quantize(content: bytes, precision: str, ranges: Ranges | None = None) -> tuple[bytes, str]:
    """Quantizes a float32 file.

    Args:
        content: the float32 file.
        precision: name in `PRECISIONS`.
        ranges: what `find_ranges` found, for precisions that are calibrated.

    Returns:
        The file, and the name of the policy in `STATIC_POLICIES` that decided which ops compute in integers, or "".
    """
    if precision == "float32":
        return content, ""
    policy, lite = "", LiteRTModel(content)
    if ranges is None:
        recipe = _with_float_activations(precision, lite)
    else:
        shown = ("", *lite.op_histogram(), *([DETECTOR] if lite.is_detector else []))
        policy = next(name for name, policy in STATIC_POLICIES.items() if policy.shown_by in shown)
        recipe = _static(precision, policy, lite)
    chosen = ranges and (ranges.whole if precision == "int16x8" else ranges.averaged)  # 16 bits need not cut
    with _quiet(), _large_kernels(), _maxima():
        result = _quantizer(content, recipe).quantize(chosen, None, False, False)
    return bytes(result.quantized_model), policy


def layer_errors(content: bytes, quantized: bytes, images: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Error of every activation that both files hold, as the norm of the difference over that of the float one.

    Args:
        content: the float32 file.
        quantized: the file that `quantize` made of it.
        images: input name -> float32 (n, ...); n is the batch of the file.
    """
    from litert_quantizer import recipe
    from litert_quantizer.utils.validation_utils import ValidationErrorMetric

    lite = LiteRTModel(content)
    with _quiet(), _large_kernels(), _maxima():
        result = _quantizer(content, recipe.static_wi8_ai8(), quantized).validate(
            {"serving_default": [dict(images)]},
            error_metrics=[ValidationErrorMetric.SNR],
            num_threads=os.cpu_count(),
        )
    activations = lite.activation_names()
    ratios = {name: metrics["snr"] for name, metrics in result.get_all_tensor_results().items()}
    return {name: float(ratio**-0.5) for name, ratio in ratios.items() if name in activations and ratio > NO_SIGNAL}


def _quantizer(content: bytes, recipe: list[dict], quantized: bytes | None = None):
    from litert_quantizer import quantizer

    return quantizer.Quantizer(content, recipe, previous_quantized_model=quantized)


def _static(precision: str, policy: str, lite: LiteRTModel) -> list[dict]:
    """The quantizer's recipe for integer activations."""
    from litert_quantizer import recipe

    told, chosen = PRECISIONS[precision], STATIC_POLICIES[policy]
    rule = (recipe.static_wi8_ai16 if told.activation_bits == 16 else recipe.static_wi8_ai8)()
    rules = [_for_op(rule[0], op) for op in chosen.integer] or rule
    config = rule[0]["op_config"]
    for op, bits in told.weight_bits.items():
        if bits != config["weight_tensor_config"]["num_bits"]:
            changed = config | {"weight_tensor_config": config["weight_tensor_config"] | {"num_bits": bits}}
            rules.append(_for_op(rule[0] | {"op_config": changed}, op))
    rules += [_float(op) for op in chosen.kept_float]
    known = {op.value for op in recipe.TFLOperationName}  # it leaves others float
    ends = lite.op_ends() if chosen.float_ends else {}
    return [*rules, *(_float(op, f"^{re.escape(name)};$") for name, op in ends.items() if op in known)]


def _with_float_activations(precision: str, lite: LiteRTModel) -> list[dict]:
    """The quantizer's recipe for activations that are float, at least between the ops."""
    from litert_quantizer import recipe

    told = PRECISIONS[precision]
    if not told.weight_bits:
        tensor = dict(num_bits=16, symmetric=True, granularity="TENSORWISE", dtype="FLOAT")
        config = dict(weight_tensor_config=tensor, compute_precision="FLOAT", explicit_dequantize=True)
        return [_for_op(dict(regex=".*", algorithm_key="float_casting", op_config=config), op) for op in LINEAR]
    whole = (recipe.dynamic_wi8_afp32 if told.dynamic else recipe.weight_only_wi8_afp32)()
    rules = [*whole, *(_float(op) for op in LINEAR if op not in told.weight_bits)]
    algorithm = recipe.AlgorithmName.MSE if told.least_error else recipe.AlgorithmName.MIN_MAX_UNIFORM_QUANT
    rules += [
        _for_op(recipe.dynamic_wi4_afp32(algorithm)[0], op) for op, bits in told.weight_bits.items() if bits == 4
    ]
    odd = [name for name, inputs in lite.dense_inputs().items() if told.bits(DENSE, inputs) != told.weight_bits[DENSE]]
    return [*rules, *(_for_op(whole[0], DENSE) | {"regex": f"^{re.escape(name)}"} for name in odd)]


def _for_op(rule: dict, op: str) -> dict:
    from litert_quantizer import recipe

    return rule | {"operation": recipe.TFLOperationName[op]}


def _float(op: str, regex: str = ".*") -> dict:
    return _for_op(dict(regex=regex, algorithm_key="no_quantize"), op)


@contextlib.contextmanager
def _quiet():
    """Silences the quantizer's warnings and bars."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _kernel_ranges(lite: LiteRTModel) -> dict[str, dict]:
    """Ranges of the output channels of every kernel; the quantizer would take their own, but for what is said here.

    The step of a bias is that of the input times that of the kernel. A channel whose kernel is zero, as weight decay
    leaves many, or tiny, would have a step with which its bias overflows, and is lost.
    """
    ranges = {}
    for name, (kernel, axis) in lite.kernels().items():
        largest = np.abs(kernel).max(axis=tuple(i for i in range(kernel.ndim) if i != axis), keepdims=True)
        largest = np.maximum(largest, SMALLEST_KERNEL * (largest.max() or 1))
        ranges[name] = {"min": -largest, "max": largest}
    return ranges


@contextlib.contextmanager
def _large_kernels():
    """Gives the quantizer large kernels in parts: its own division of them (0.11) takes matrices alone."""
    from litert_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor

    whole = uniform_quantize_tensor.uniform_quantize

    def in_parts(kernel, parameters, is_blockwise=False):
        if kernel.ndim <= 2 or kernel.nbytes <= LARGE_KERNEL:
            return whole(kernel, parameters, is_blockwise)
        count = -(-kernel.nbytes // LARGE_KERNEL)

        def split(values):
            alone = values.ndim == kernel.ndim and len(values) == len(kernel)
            return np.array_split(values, count) if alone else [values] * count

        parts = zip(split(kernel), split(parameters.scale), split(parameters.zero_point), strict=True)
        return np.concatenate(
            [
                whole(part, dataclasses.replace(parameters, scale=scale, zero_point=zero), is_blockwise)
                for part, scale, zero in parts
            ]
        )

    uniform_quantize_tensor.uniform_quantize = in_parts
    try:
        yield
    finally:
        uniform_quantize_tensor.uniform_quantize = whole


@contextlib.contextmanager
def _maxima():
    """Lets the quantizer treat REDUCE_MAX as REDUCE_MIN: its table (0.11) has the one alone.

    Left in floating point, CBAM's maxima cost a DEQUANTIZE of the whole map each; among integers of one scale the
    largest is the largest.
    """
    from litert_quantizer.qtyping import BuiltinOperator, TFLOperationName
    from litert_quantizer.utils import tfl_flatbuffer_utils

    known = tfl_flatbuffer_utils.TFL_OP_CODE_TO_NAME
    tfl_flatbuffer_utils.TFL_OP_CODE_TO_NAME = {BuiltinOperator.REDUCE_MAX: TFLOperationName.REDUCE_MIN} | dict(known)
    try:
        yield
    finally:
        tfl_flatbuffer_utils.TFL_OP_CODE_TO_NAME = known


def _widen_dead_ranges(ranges: dict[str, dict]) -> None:
    """Gives tensors that were constant on all calibration images a range of at least one.

    A ReLU that never fires would get a scale of about 1e-12, with which XNNPACK refuses to run. CBAM's hidden
    layer has one unit at 16 channels, so this is common there. Zero stays exactly zero at any scale.
    """
    for values in ranges.values():
        if values and np.all(np.asarray(values["max"]) - np.asarray(values["min"]) < 1e-6):
            values["max"] = np.asarray(values["min"]) + np.float32(1)
