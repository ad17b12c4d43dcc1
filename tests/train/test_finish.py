"""What a run leaves tells what its output means, and a backend that cannot export costs no report."""

import json
import shlex
import shutil
import subprocess
import sys

import keras
import pytest

import kzoo
from kzoo.check.jax_process import JaxProcess, jax_environment
from kzoo.class_names import known_output
from kzoo.cli import main
from kzoo.edge import LiteRTModel, read_card
from kzoo.errors import InvalidValueError
from kzoo.images import Pixels
from kzoo.output import Output
from kzoo.predict.classifier import open_classifier
from kzoo.train import loop, train
from kzoo.train.command import export_command_of

DIGITS = tuple("0123456789")


@pytest.fixture
def run(recipe, exported):
    """A copy of the run."""
    shutil.copytree(exported.run_dir, recipe.run_dir)
    return exported.replace(output_dir=recipe.output_dir)


def forget(path):
    """Makes the file one of version 0.1, which carries nothing: the report beside it tells."""
    model = keras.saving.load_model(path)
    keras.Model(model.input, model.get_layer("meaning").input).save(path)


def test_the_report_and_the_card_tell_what_the_output_means(run):
    recipe, meaning = run, Output("classification", "softmax", 10, DIGITS)
    file, path = recipe.run_dir / "model_float32.tflite", recipe.run_dir / "report.json"
    assert Output.from_json(json.loads(path.read_text())["output"]) == meaning
    assert read_card(file).output == meaning
    model = keras.saving.load_model(recipe.run_dir / "model.keras")
    for name, opened in (("model.keras", model), (file.name, LiteRTModel(file))):
        assert known_output(str(recipe.run_dir / name), opened) == meaning

    forget(recipe.run_dir / "model.keras")
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"output": told["output"] | {"class_names": list("abcdefghij")}}))
    assert open_classifier(str(recipe.run_dir / "model.keras")).class_names == tuple("abcdefghij")
    path.write_text(json.dumps(told | {"output": told["output"] | {"units": 3, "class_names": None}}))
    assert open_classifier(str(recipe.run_dir / "model.keras")).class_names == DIGITS  # it is of another model
    for wrong in (
        {"units": True},
        {"units": "10"},
        {"values": "probabilities"},
        {"class_names": {"a": 1}},
        {"task": []},
    ):
        path.write_text(json.dumps(told | {"output": told["output"] | wrong}))
        with pytest.raises(InvalidValueError, match=r"report\.json cannot be right: "):
            open_classifier(str(recipe.run_dir / "model.keras"))


def test_files_evaluation_and_prediction_take_the_pixels_of_the_recipe(run):
    recipe, pixels = run, Pixels("pad", interpolation="bicubic")
    report = json.loads((recipe.run_dir / "report.json").read_text())
    assert Pixels.from_json(report["pixels"]) == pixels
    assert read_card(recipe.run_dir / "model_float32.tflite").pixels == pixels
    for name in ("model.keras", "folded.keras", "model_float32.tflite"):
        assert open_classifier(str(recipe.run_dir / name)).pixels == pixels
    forget(recipe.run_dir / "model.keras")
    assert open_classifier(str(recipe.run_dir / "model.keras")).pixels == pixels
    path = recipe.run_dir / "report.json"
    for wrong in (None, [], {"resize": "pad"}, report["pixels"] | {"crop": "a"}):
        path.write_text(json.dumps(report | {"pixels": wrong}))
        with pytest.raises(InvalidValueError, match=r"report\.json: .*; remove the file or train again"):
            open_classifier(str(recipe.run_dir / "model.keras"))


@pytest.mark.skipif(not JaxProcess.available(), reason="jax is not installed")
def test_a_backend_that_cannot_export_finishes_with_the_report_and_says_how_to_export(run, monkeypatch, capsys):
    finish = loop.finish

    def under_jax(*args):
        with monkeypatch.context() as patch:
            patch.setattr(keras.backend, "backend", lambda: "jax")
            return finish(*args)

    monkeypatch.setattr(loop, "finish", under_jax)
    report = train(run.replace(export=("float32", "int8")))
    assert list(report["models"]) == ["keras", "folded"]
    assert report["exports"] == {}
    assert "tflite" not in (run.run_dir / "README.md").read_text()
    told = " ".join(capsys.readouterr().out.split())
    assert "not exported, as KERAS_BACKEND is jax; export with KERAS_BACKEND=tensorflow kzoo export" in told
    assert "--precision float32 int8 --dataset digits" in told


@pytest.mark.parametrize("export", [("float32",), ("float32", "float16")])
def test_the_command_that_is_told_exports(export, recipe, tmp_path):
    kzoo.build("tiny", input_shape=(16, 16, 3), num_classes=10).save(tmp_path / "folded.keras")
    words = shlex.split(export_command_of(recipe.replace(export=export), tmp_path))
    assert words[0] == "kzoo"
    main(words[1:])
    assert len(list(tmp_path.glob("*.tflite"))) == len(export)


@pytest.mark.slow
@pytest.mark.skipif(not JaxProcess.available(), reason="jax is not installed")
def test_kzoo_train_under_jax_ends_with_a_report(tmp_path):
    command = [sys.executable, "-c", "import sys; from kzoo.cli import main; main(sys.argv[1:])"]
    arguments = ["train", "quickstart", "--smoke", "--output-dir", str(tmp_path / "run")]
    child = subprocess.run(
        [*command, *arguments], env=jax_environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert child.returncode == 0, child.stderr[-3000:]
    assert "not exported, as KERAS_BACKEND is jax" in child.stdout
    report = json.loads((tmp_path / "run-smoke" / "report.json").read_text())
    assert report["models"]["keras"]["accuracy"] == report["models"]["folded"]["accuracy"]
