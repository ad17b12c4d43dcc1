"""The checks: broken models fail with the reason, and nothing else ends."""

import json

import keras
import pytest
from dying_check import die

from kzoo.check import CHECKS, NarrowModel, jax_process, matrix
from kzoo.check.jax_process import JaxProcess
from kzoo.check.matrix import Outcome, check_models
from kzoo.errors import CheckFailed

needs_jax = pytest.mark.skipif(not JaxProcess.available(), reason="jax is not installed")


@keras.saving.register_keras_serializable("test_check")
class Deaf(keras.layers.Layer):
    """Its scale is held back from gradients."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return x * keras.ops.stop_gradient(self.scale)


@keras.saving.register_keras_serializable("test_check")
class Sums(keras.layers.Layer):
    """Sums over the rows one after the other, which XNNPACK leaves to others."""

    def call(self, x):
        return keras.ops.cumsum(x, axis=1)


@keras.saving.register_keras_serializable("test_check")
class Forgetful(keras.layers.Layer):
    """Saves no factor, and comes back with another one."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable("test_check")
class FoldsWrong(keras.layers.Conv2D):
    """A convolution that forgets its bias when it is folded."""

    def folded(self):
        layer = keras.layers.Conv2D(self.filters, self.kernel_size, padding="same", name=self.name)
        return layer, [self.kernel, 0 * self.bias]


def check(name, *checks) -> dict[str, Outcome]:
    [(_, row)] = check_models([name], checks)
    return row.outcomes


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize(
    ("name", "layer", "failed", "reason"),
    [
        ("deaf", Deaf, "gradients", "no gradient reaches deaf/scale"),
        ("deaf", Deaf, "learns", "a step does not move deaf/scale"),
        ("forgetful", lambda name: Forgetful(2.0, name=name), "saves", "the loaded model gives other outputs"),
        ("sums", Sums, "exports", "XNNPACK runs it in 2 partitions"),
        ("noise", lambda name: keras.layers.GaussianNoise(0.5, name=name), "learns", " under XLA and "),
        # folding compares itself with the model and leaves it as it is
        (
            "wrong",
            lambda name: FoldsWrong(6, 3, padding="same", name=name),
            "folds",
            "statistics stay without a reason in bn",
        ),
    ],
)
def test_broken_models_fail_with_the_reason(add, name, layer, failed, reason):
    add(name, layer(name=name))
    others = {"builds", "exports" if name == "deaf" else "gradients"}
    outcomes = check(name, failed, *others)
    assert outcomes[failed].passed is False
    assert reason in outcomes[failed].note
    assert all(outcomes[other].passed for other in others)  # one failure leaves the other checks and the weights


def test_a_unit_that_is_closed_for_all_images_is_no_failure(add, tmp_path):
    """Of eight narrow gates some are closed under any one draw of the weights."""

    def gates(x):
        for index in range(8):
            gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"pool{index}")(x)
            gate = keras.layers.Dense(1, "relu", use_bias=False, name=f"reduce{index}")(gate)
            gate = keras.layers.Dense(6, "sigmoid", use_bias=False, name=f"expand{index}")(gate)
            x = keras.layers.Multiply(name=f"scale{index}")([x, gate])
        return x

    add("gates", gates)
    here, never = NarrowModel("gates", tmp_path).without_gradient
    assert here
    assert never == set()
    outcomes = check("gates", "gradients", "learns")
    assert outcomes["gradients"].passed
    assert outcomes["learns"].passed


@pytest.mark.quick
def test_a_missing_tap_fails(add):
    add("gap", levels=(1, 3))
    assert check("gap", "builds")["builds"] == Outcome(False, "its taps are p1, p3; a level is missing")


def test_any_error_is_an_outcome(monkeypatch):
    def explode(narrow):
        try:
            raise KeyError("bn1")
        except KeyError as error:
            raise ValueError("a long\nstory" + "." * 1000) from error

    monkeypatch.setitem(CHECKS, "builds", explode)
    note = check("cifar_resnet20", "builds")["builds"].note
    assert note.startswith("ValueError: a long story...")
    assert note.endswith("...… (from KeyError: 'bn1')")
    assert len(note) < 250


def test_many_models_are_checked_in_other_processes(monkeypatch):
    monkeypatch.setattr(matrix, "PER_PROCESS", 1)
    monkeypatch.setattr(matrix, "check_in_worker", die)
    rows = dict(check_models(["plain18", "cifar_resnet20"], ("builds", "saves")))
    died = Outcome(False, "the process that checked it died")
    assert rows["plain18"].outcomes == {"builds": died, "saves": died}
    monkeypatch.undo()
    here = dict(check_models(["cifar_resnet20"], ("builds", "saves")))["cifar_resnet20"]
    assert rows["cifar_resnet20"].outcomes == here.outcomes
    assert not here.failed


@needs_jax
def test_jax_tells_why_it_fails_and_goes_on(add, monkeypatch):
    add("unknown", Sums(name="sums"))  # the other process has no such class
    add("small")
    rows = dict(check_models(["unknown", "small"], ["jax"]))
    assert rows["unknown"].outcomes["jax"].passed is False
    assert "Could not locate class 'Sums'" in rows["unknown"].outcomes["jax"].note.replace('"', "'")
    assert float(rows["small"].outcomes["jax"].note) < 1e-5


def test_a_dead_jax_process_is_started_again(tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    monkeypatch.setattr(jax_process, "CHILD", "import sys; sys.exit('out of memory')")
    with JaxProcess() as jax:
        for _ in range(2):
            jax.ask(path, 0, 0)
            with pytest.raises(CheckFailed, match="the JAX process ended with status 1: out of memory"):
                jax.answer(path)
        answer = json.dumps({"path": str(path), "error": 0.5})
        monkeypatch.setattr(jax_process, "CHILD", f"input(); print({answer!r})")
        jax.ask(path, 0, 0)
        assert jax.answer(path) == 0.5


def test_without_jax_the_check_is_skipped(add, monkeypatch):
    add("small")
    monkeypatch.setattr(JaxProcess, "available", staticmethod(lambda: False))
    [(_, row)] = check_models(["small"], ["jax"])
    assert row.outcomes["jax"] == Outcome(None, "JAX is not installed")
    assert not row.failed
