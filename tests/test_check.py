"""`kzoo check`: good models pass, broken ones fail with the reason, and an interrupted run goes on."""

import json
import os
from dataclasses import dataclass

import keras
import pytest
from PIL import Image

import kzoo
from kzoo import registry
from kzoo.check import CHECKS, Subject, jax_process, matrix
from kzoo.check.jax_process import JaxProcess
from kzoo.check.matrix import MatrixFile, Outcome, Row, check_models, config_of
from kzoo.check.report import draw
from kzoo.cli import main
from kzoo.errors import CheckFailed
from kzoo.taps import mark

needs_jax = pytest.mark.skipif(not JaxProcess.available(), reason="jax is not installed")


@dataclass(frozen=True)
class Config:
    total_stride: int = 2
    width: int = 6


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


@pytest.fixture
def add(monkeypatch):
    """Registers a small model with a layer of one's own behind its stem, until the test ends."""

    def register(name, layer=None, levels=(1, 2)):
        def features(x, config):
            x = keras.layers.Conv2D(config.width, 3, 2, "same", use_bias=False, name="conv")(x)
            x = keras.layers.BatchNormalization(name="bn")(x)
            maps = {f"p{levels[0]}": mark(layer(x) if layer else x, levels[0])}
            x = keras.layers.ReLU(name="relu")(maps[f"p{levels[0]}"])
            x = keras.layers.Conv2D(config.width, 3, 2, "same", name="conv2")(x)
            return maps | {f"p{levels[1]}": mark(x, levels[1])}

        def head(maps, num_classes, activation, config):
            x = keras.layers.GlobalAveragePooling2D(name="head_pool")(maps[f"p{levels[1]}"])
            return keras.layers.Dense(num_classes, activation, name="head_dense")(x)

        entry = registry.Entry(name, "small", Config(), features, head, (32, 32, 3), 10, "tf", ())
        monkeypatch.setitem(registry._ENTRIES, name, entry)

    return register


def check(name, *checks) -> dict[str, Outcome]:
    [(_, row)] = check_models([name], checks)
    return row.outcomes


@needs_jax
def test_a_good_model_passes(add, tmp_path, capsys):
    add("small")
    main(["check", "small", "--output", str(tmp_path)])
    captured = capsys.readouterr()
    assert "1 of 1 models pass, 7 checks passed\n" in captured.out
    assert "small passes" in captured.err
    content = json.loads((tmp_path / "matrix.json").read_text())
    assert content["kzoo"] == kzoo.__version__
    outcomes = content["models"]["small"]["outcomes"]
    assert list(outcomes) == ["builds", "saves", "learns", "gradients", "folds", "exports", "jax"]
    assert all(outcome["passed"] is True for outcome in outcomes.values())
    assert outcomes["builds"]["note"] == "p1–p2"
    assert outcomes["gradients"]["note"] == "7 weights"
    assert 0 < float(outcomes["folds"]["note"]) < 1e-5
    markdown = (tmp_path / "README.md").read_text()
    assert "1 of 1 models pass" in markdown
    assert "## small\n\n| model | builds |" in markdown
    assert "## Failures\n\nNone." in markdown
    assert Image.open(tmp_path / "matrix.png").format == "PNG"


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize(
    ("name", "layer", "failed", "reason"),
    [
        ("deaf", Deaf, "gradients", "no gradient reaches deaf/scale"),
        ("deaf", Deaf, "learns", "a step does not move deaf/scale"),
        ("forgetful", lambda name: Forgetful(2.0, name=name), "saves", "the loaded model gives other outputs"),
        ("sums", Sums, "exports", "XNNPACK runs it in 2 partitions"),
        ("noise", lambda name: keras.layers.GaussianNoise(0.5, name=name), "learns", " under XLA and "),
        ("wrong", lambda name: FoldsWrong(6, 3, padding="same", name=name), "folds", "the outputs differ by 0."),
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
    here, never = Subject("gates", tmp_path).without_gradient
    assert here
    assert never == set()
    outcomes = check("gates", "gradients", "learns")
    assert outcomes["gradients"].passed
    assert outcomes["learns"].passed


def test_a_missing_tap_fails(add):
    add("gap", levels=(1, 3))
    assert check("gap", "builds")["builds"] == Outcome(False, "its taps are p1, p3; a level is missing")


def test_any_error_is_an_outcome(monkeypatch):
    def explode(subject):
        try:
            raise KeyError("bn1")
        except KeyError as error:
            raise ValueError("a long\nstory" + "." * 1000) from error

    monkeypatch.setitem(CHECKS, "builds", explode)
    note = check("cifar_resnet20", "builds")["builds"].note
    assert note.startswith("ValueError: a long story...")
    assert note.endswith("...… (from KeyError: 'bn1')")
    assert len(note) < 250


def die(name, checks):
    """What a worker does whose process is killed."""
    if name == "plain18":
        os._exit(9)
    return matrix.check_in_worker(name, checks)


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


def replace_checks(monkeypatch, function):
    """Puts `function` in the place of every check."""
    for name in CHECKS:
        monkeypatch.setitem(CHECKS, name, function)


def test_goes_on_where_it_stopped(add, tmp_path, monkeypatch, capsys):
    for name in ("first", "second", "third"):
        add(name)
    seen = []

    def stops(subject):
        seen.append(subject.name)
        if subject.name == "third":
            raise KeyboardInterrupt
        if subject.name == "second":
            raise CheckFailed("it [is] broken")
        return "1.0e-07"

    def passes(subject):
        seen.append(subject.name)
        return "2.0e-07"

    command = ["check", "first", "second", "third", "--output", str(tmp_path)]
    replace_checks(monkeypatch, stops)
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 130
    assert sorted(json.loads((tmp_path / "matrix.json").read_text())["models"]) == ["first", "second"]

    seen.clear()
    with pytest.raises(SystemExit) as stop:
        main(command[:3] + command[-2:])
    assert stop.value.code == 1
    captured = capsys.readouterr()
    assert seen == ["second"] * 7  # a failure is tried again
    assert "second builds: it [is] broken" in captured.out
    assert "1 of 2 models pass, 7 checks passed, 7 failed" in captured.out
    assert "- `second` builds: it [is] broken" in (tmp_path / "README.md").read_text()

    seen.clear()
    replace_checks(monkeypatch, passes)
    main(command)
    assert seen == ["second"] * 7 + ["third"] * 7
    assert "3 of 3 models pass" in capsys.readouterr().out
    assert "✓ 1.0e-07" in (tmp_path / "README.md").read_text()


def test_rows_of_other_versions_are_left_out(add, tmp_path, monkeypatch):
    add("small")
    path = tmp_path / "matrix.json"
    outcomes = {check: Outcome(True, "") for check in CHECKS}
    MatrixFile(path).add("small", Row(config_of("small"), 1.0, outcomes))
    assert list(MatrixFile(path).rows) == ["small"]
    MatrixFile(path).add("small", Row("another configuration", 1.0, outcomes))
    assert MatrixFile(path).rows == {}
    MatrixFile(path).add("small", Row(config_of("small"), 1.0, {"builds": Outcome(True, "")}))
    assert MatrixFile(path).rows == {}
    MatrixFile(path).add("small", Row(config_of("small"), 1.0, outcomes))
    monkeypatch.setattr(kzoo, "__version__", "0.0.0")
    assert MatrixFile(path).rows == {}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no model given; name models or patterns"),
        (["resnet18", "--all"], "both names and --all were given"),
        (["resnet18", "resnet50_cbm"], "no model matches 'resnet50_cbm'; did you mean 'resnet50_cbam'"),
        (["resnet18", "--output", "/dev/null/x"], "cannot write"),
        (["resnet18", "--output", "."], "is no matrix of kzoo check; remove it"),
    ],
)
def test_mistakes(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "matrix.json").write_text('{"kzoo": "0.1.0", "models": {"resnet18": 3}}')
    with pytest.raises(SystemExit) as stop:
        main(["check", *args])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("kzoo: ")
    assert message in error
    assert error.count("\n") == 1


def test_needs_tensorflow(monkeypatch, capsys):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(SystemExit):
        main(["check", "resnet18"])
    assert "needs KERAS_BACKEND=tensorflow, not 'jax'" in capsys.readouterr().err


def test_the_picture_of_the_whole_zoo_is_about_square(tmp_path):
    row = Row("", 1.0, {check: Outcome(True, "") for check in CHECKS})
    draw(dict.fromkeys(kzoo.list_models(), row), tmp_path / "matrix.png")
    width, height = Image.open(tmp_path / "matrix.png").size
    assert 0.6 < width / height < 1.7
    assert width < 2000
