"""The command `kzoo check`: its files and exit codes, and an interrupted run goes on."""

import json

import keras
import pytest
from PIL import Image

import kzoo
from kzoo.check import CHECKS
from kzoo.check.jax_process import JaxProcess
from kzoo.check.matrix import MatrixFile, Outcome, Verdict, config_of
from kzoo.check.page import draw_matrix
from kzoo.cli import main
from kzoo.errors import CheckFailed


@pytest.mark.skipif(not JaxProcess.available(), reason="jax is not installed")
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


def replace_checks(monkeypatch, function):
    """Puts `function` in the place of every check."""
    for name in CHECKS:
        monkeypatch.setitem(CHECKS, name, function)


def test_goes_on_where_it_stopped(add, tmp_path, monkeypatch, capsys):
    for name in ("first", "second", "third"):
        add(name)
    seen = []

    def stops(narrow):
        seen.append(narrow.name)
        if narrow.name == "third":
            raise KeyboardInterrupt
        if narrow.name == "second":
            raise CheckFailed("it [is] broken")
        return "1.0e-07"

    def passes(narrow):
        seen.append(narrow.name)
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
    MatrixFile(path).add("small", Verdict(config_of("small"), 1.0, outcomes))
    assert list(MatrixFile(path).verdicts) == ["small"]
    MatrixFile(path).add("small", Verdict("another configuration", 1.0, outcomes))
    assert MatrixFile(path).verdicts == {}
    MatrixFile(path).add("small", Verdict(config_of("small"), 1.0, {"builds": Outcome(True, "")}))
    assert MatrixFile(path).verdicts == {}
    MatrixFile(path).add("small", Verdict(config_of("small"), 1.0, outcomes))
    monkeypatch.setattr(kzoo, "__version__", "0.0.0")
    assert MatrixFile(path).verdicts == {}


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
    assert "needs KERAS_BACKEND=tensorflow, and it is 'jax'" in capsys.readouterr().err


def test_the_chart_of_the_whole_zoo_is_about_square(tmp_path):
    verdict = Verdict("", 1.0, {check: Outcome(True, "") for check in CHECKS})
    draw_matrix(dict.fromkeys(kzoo.list_models(), verdict), tmp_path / "matrix.png")
    width, height = Image.open(tmp_path / "matrix.png").size
    assert 0.6 < width / height < 1.7
    assert width < 2000
