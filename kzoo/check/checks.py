"""The checks. Each takes a `NarrowModel`, returns a short note, and raises an error with the reason if it fails."""

from collections.abc import Callable

import keras
import numpy as np

from kzoo.check.narrow_model import NarrowModel
from kzoo.check.probe import pixels, relative_error, weights_of
from kzoo.edge import export
from kzoo.errors import CheckFailed
from kzoo.surgery import plan_folding
from kzoo.taps import TAP, tap_names

TOLERANCE = 1e-5  # of outputs, relative to the largest
LOSS_TOLERANCE = 1e-4  # XLA adds up in another order, through batch statistics


class Skipped(Exception):
    """A check that cannot be made here, with the reason."""


def builds(narrow: NarrowModel) -> str:
    """Builds, with a tap at every stride from the first to the last."""
    narrow.demands.check_outputs(narrow.model)
    taps = tap_names(narrow.model)
    if not taps:
        raise CheckFailed("it has no taps")
    levels = [int(tap[1:]) for tap in taps if TAP.fullmatch(tap)]
    if levels != list(range(levels[0], levels[-1] + 1)):
        raise CheckFailed(f"its taps are {', '.join(taps)}; a level is missing")
    if not all(np.isfinite(each).all() for each in keras.tree.flatten(narrow.outputs)):
        raise CheckFailed("its outputs are not finite")
    return f"{taps[0]}–{taps[-1]}"


def saves(narrow: NarrowModel) -> str:
    """A `.keras` file gives the same weights and outputs back, bit for bit."""
    loaded = keras.saving.load_model(narrow.file)
    if [layer.name for layer in loaded.layers] != [layer.name for layer in narrow.model.layers]:
        raise CheckFailed("the loaded model has other layers")
    changed = [
        variable.path
        for variable, new in zip(narrow.model.weights, loaded.weights, strict=True)
        if not np.array_equal(variable, new)
    ]
    if changed:
        raise CheckFailed(f"loading changes {_list(changed)}")
    same = keras.tree.map_structure(np.array_equal, loaded(narrow.images), narrow.outputs)
    if not all(keras.tree.flatten(same)):
        raise CheckFailed("the loaded model gives other outputs")
    return f"{narrow.file.stat().st_size / 1e3:.0f} kB"


def learns(narrow: NarrowModel) -> str:
    """A training step compiled by XLA has the loss that TensorFlow finds without it, and moves every weight."""
    demands, images = narrow.demands, pixels(8, *narrow.model.input.shape[1:])
    truth, loss_of = demands.truth(narrow.model, 8), demands.loss(narrow.model)
    with narrow.training() as model:
        eager = float(loss_of(truth, model(images, training=True)))
        before = weights_of(model)
        model.compile(keras.optimizers.SGD(demands.learning_rate(narrow.model)), loss=loss_of, jit_compile=True)
        loss = float(model.train_on_batch(images, truth, return_dict=True)["loss"])
        moves = list(zip(model.weights, before, strict=True))
        broken = [weight.path for weight, _ in moves if not np.isfinite(weight).all()]
        still = {weight.path for weight, old in moves if np.array_equal(weight, old)}
    error = abs(loss - eager) / abs(eager)
    if not error < LOSS_TOLERANCE:
        raise CheckFailed(f"the loss is {loss:.7g} under XLA and {eager:.7g} without")
    if broken:
        raise CheckFailed(f"not finite after a step: {_list(broken)}")
    here, never = narrow.without_gradient
    stuck = still - narrow.idle_biases - (here - never)
    if stuck:
        raise CheckFailed(f"a step does not move {_list(sorted(stuck))}")
    return f"{error:.1e}"


def gradients(narrow: NarrowModel) -> str:
    """Every trainable weight receives a gradient, under one draw of the weights or another."""
    _, never = narrow.without_gradient
    if never:
        raise CheckFailed(f"no gradient reaches {_list(sorted(never))}")
    return f"{len(narrow.model.trainable_variables)} weights"


def folds(narrow: NarrowModel) -> str:
    """Folding batch normalisation leaves the outputs, and what stays of it stays for a reason."""
    kept = plan_folding(narrow.model).kept
    layers = {variable.path.split("/")[0] for variable in narrow.folded.variables if "moving" in variable.path}
    if layers - set(kept):
        raise CheckFailed(f"statistics stay without a reason in {_list(sorted(layers - set(kept)))}")
    if tap_names(narrow.folded) != tap_names(narrow.model):
        raise CheckFailed("the folded model has other taps")
    note = _judge(relative_error(narrow.folded(narrow.images), narrow.outputs))
    return note + (f", {len(kept)} stay" if kept else "")


def exports(narrow: NarrowModel) -> str:
    """The folded model is a LiteRT file of built-in ops, in one XNNPACK partition, with the same outputs."""
    report = export(narrow.folded, narrow.directory / "model.tflite", calibration=narrow.images)
    if report.xnnpack_partitions != 1:
        raise CheckFailed(f"XNNPACK runs it in {report.xnnpack_partitions} partitions")
    foreign = [op for op in report.ops if op.startswith(("Flex", "CUSTOM"))]
    if foreign:
        raise CheckFailed(f"it needs {_list(foreign)}")
    return _judge(report.max_rel_error)


def jax(narrow: NarrowModel) -> str:
    """The saved model has the same outputs under JAX."""
    if narrow.jax is None:
        raise Skipped("JAX is not installed")
    return _judge(narrow.jax.answer(narrow.file))


def _judge(error: float) -> str:
    if not error < TOLERANCE:  # a NaN fails too
        raise CheckFailed(f"the outputs differ by {error:.2g}, accepted {TOLERANCE:g}")
    return f"{error:.1e}"


def _list(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


CHECKS: dict[str, Callable[[NarrowModel], str]] = {
    check.__name__: check for check in (builds, saves, learns, gradients, folds, exports, jax)
}
