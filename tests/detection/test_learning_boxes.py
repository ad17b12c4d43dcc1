"""One step of each detector: under XLA and in half precision the loss is that of float32 without XLA."""

import keras
import numpy as np
import pytest
from helpers import pixels, slow_but

import kzoo
from kzoo.check.demands import DEMANDS
from kzoo.registry import DETECTION

TINY = dict(backbone="resnet18", backbone_options=dict(widths=(4, 6, 8, 10), depths=(1, 1, 1, 1)), channels=8)
TINY |= dict(head_depth=1, extra_levels=1, num_classes=10, input_shape=(64, 64, 3))
# logits of -4.6 in 8 and 11 bits are off by half a step, 0.016 and 0.002, the loss without boxes by three times that
TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 2e-2, "mixed_float16": 6e-3}


def build(name: str, policy: str) -> keras.Model:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return kzoo.build(name, head_norm=None, **TINY)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    ("name", "policy"),
    slow_but(
        [("retinanet", "mixed_float16")], [(name, policy) for name in ("fcos", "retinanet") for policy in TOLERANCE]
    ),
)
@pytest.mark.parametrize("empty", [False, True], ids=["boxes", "no boxes"])
def test_a_step_under_xla(name, policy, empty):
    demands, images = DEMANDS[DETECTION], pixels(3, 64, 64, 3)
    exact, model = build(name, "float32"), build(name, policy)
    model.set_weights(exact.get_weights())
    truth, loss_of = demands.truth(exact, 3), demands.loss(exact)
    if empty:
        truth["classes"][:] = -1
    expected = float(loss_of(truth, demands.in_training(exact)(images, training=True)))
    learner = demands.in_training(model)
    learner.compile(keras.optimizers.SGD(0.01), loss=loss_of, jit_compile=True)
    logs = learner.train_on_batch(images, truth, return_dict=True)
    assert abs(float(logs["loss"]) - expected) < TOLERANCE[policy] * expected
    assert (logs["boxes_loss"] == 0) == empty
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    moved = [np.abs(new - old).max() > 0 for new, old in zip(model.get_weights(), exact.get_weights(), strict=True)]
    assert np.mean(moved) > 0.5
