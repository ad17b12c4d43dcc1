"""The same models and layers under JAX: equal outputs, and no TensorFlow in the process."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import feature_map, pixels, randomise
from layers.cases import CASES

import kzoo
from kzoo.registry import lookup

NAMES = ("cifar_resnet20_cbam", "plain18_se", "resnet50", "resnet50_v2_cbam")
FOLDED = ("cifar_resnet20_cbam",)
CHILD = """
import sys
from pathlib import Path

import keras
import numpy as np

import kzoo
assert keras.backend.backend() == "jax"
kzoo.build("cifar_resnet20", depths=(1, 1), widths=(4, 8))
assert "tensorflow" not in sys.modules, "kzoo imported TensorFlow"
assert kzoo.describe("cifar_resnet20").trainable_parameters == 269722
for path in sorted(Path(sys.argv[1]).glob("*.keras")):
    model = keras.saving.load_model(path)
    arrays = np.load(path.with_suffix(".npz"))
    models = {path.stem: model}
    if path.stem in sys.argv[2:]:
        models[f"{path.stem} folded"] = kzoo.fold_batch_norm(model)
    for name, each in models.items():
        outputs = keras.ops.convert_to_numpy(each(arrays["images"]))
        error = np.abs(outputs - arrays["outputs"]).max() / np.abs(arrays["outputs"]).max()
        print(f"{name}: {error:.2g}")
        assert error < 1e-5, (name, error)
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_outputs_equal_under_jax(tmp_path):
    examples = {}
    for name in NAMES:
        model = kzoo.build(name, input_shape=(32, 32, 3), classifier_activation=None, **lookup(name).narrow)
        examples[name] = randomise(model), pixels(3, 32, 32, 3)
    for name, case in CASES.items():
        model = randomise(case.model())
        examples[name] = model, feature_map(2, *model.input.shape[1:])
    for name, (model, images) in examples.items():
        model.save(tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.npz", images=images, outputs=np.array(model(images)))
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path, *FOLDED], env=environment, capture_output=True, text=True, timeout=300
    )
    assert child.returncode == 0, child.stderr[-3000:]
    print(child.stdout)
    assert len(child.stdout.splitlines()) == len(examples) + len(FOLDED)
