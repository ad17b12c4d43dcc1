"""The layers and a folded model under JAX: equal outputs, and no TensorFlow in the process.

tests/test_whole_path.py does the same for every model of the zoo.
"""

import subprocess
import sys

import numpy as np
import pytest
from helpers import feature_map, pixels, randomise
from layers.cases import CASES

import kzoo
from kzoo.check.jax_process import JaxProcess, jax_environment

NAME = "cifar_resnet20_cbam"
FIRST = {type(case.make()): name for name, case in reversed(CASES.items())}.values()
CHILD = """
import sys

import keras
import numpy as np

import kzoo
import kzoo.check
assert keras.backend.backend() == "jax"
kzoo.build("cifar_resnet20", depths=(1, 1), widths=(4, 8))
assert "tensorflow" not in sys.modules, "kzoo imported TensorFlow"
assert kzoo.describe("cifar_resnet20").trainable_parameters == 269722
model = kzoo.fold_batch_norm(keras.saving.load_model(sys.argv[1]))
arrays = np.load(sys.argv[2])
outputs = keras.ops.convert_to_numpy(model(arrays["images"]))
error = np.abs(outputs - arrays["outputs"]).max() / np.abs(arrays["outputs"]).max()
assert error < 1e-5, error
"""

pytestmark = pytest.mark.skipif(not JaxProcess.available(), reason="jax is not installed")


@pytest.mark.parametrize("names", [sorted(FIRST), pytest.param(sorted(CASES), marks=pytest.mark.slow)], ids=len)
def test_layers_are_equal_under_jax(names, tmp_path):
    """One case of each layer; the others are slow."""
    with JaxProcess() as jax:
        for name in names:
            model = randomise(CASES[name].model())
            images = feature_map(2, *model.input.shape[1:])
            model.save(tmp_path / f"{name}.keras")
            jax.ask(tmp_path / f"{name}.keras", images, np.array(model(images)))
        errors = {name: jax.answer(tmp_path / f"{name}.keras") for name in names}
    assert {name: error for name, error in errors.items() if not error < 1e-5} == {}


def test_folds_under_jax_without_tensorflow(tmp_path):
    path, arrays = tmp_path / "model.keras", tmp_path / "arrays.npz"
    model = kzoo.build(NAME, input_shape=(32, 32, 3), classifier_activation=None, depths=(1, 1), widths=(4, 8))
    images = pixels(3, 32, 32, 3)
    np.savez(arrays, images=images, outputs=np.array(randomise(model)(images)))
    model.save(path)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, path, arrays],
        env=jax_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-3000:]
