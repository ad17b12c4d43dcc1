"""The `kzoo` command: useful output, and exit code 2 with one line for every mistake."""

import dataclasses
import inspect
import logging
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import fails
from PIL import Image

import kzoo
from kzoo.cli import COMMANDS, main
from kzoo.commands.forms import FORMS
from kzoo.console import user_errors
from kzoo.recipe import KINDS, Recipe


@pytest.fixture(scope="module")
def digit_model(tmp_path_factory):
    """A small random classifier of digits."""
    path = tmp_path_factory.mktemp("models") / "model.keras"
    kzoo.build("cifar_resnet20", depths=(1, 1, 1), widths=(4, 8, 8)).save(path)
    return path


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(f"  {command} " in text and summary in text for command, summary in COMMANDS.items())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"kzoo {command}" in capsys.readouterr().out


@pytest.mark.parametrize("args", [["quickstart", "--help"], ["--help"]])
def test_help_of_recipes_shows_their_options(args, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", *args])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--learning-rate" in text
    assert "cifar_resnet20_cbam" in text


@pytest.mark.quick
def test_list_and_info(capsys):
    main(["list", "resnet18*"])
    assert "3 models" in capsys.readouterr().out
    main(["info", "cifar_resnet20"])
    text = capsys.readouterr().out
    assert "269,722" in text
    assert "0.041 G" in text
    assert "8×8×64" in text


def test_info_shows_public_weights(capsys):
    main(["info", "resnet18"])
    text = capsys.readouterr().out
    assert "\na1_in1k (imagenet)\tApache-2.0\t224×224\t1000\t71.49 %\thf://timm/resnet18.a1_in1k\n" in text
    assert "\nfb_ssl_yfcc100m_ft_in1k\tCC-BY-NC-4.0\t" in text
    main(["info", "resnet18", "--attention", "kernel_regression"])
    text = capsys.readouterr().out
    assert "no public weights" in text
    assert "https://arxiv.org/abs/1512.03385, Nadaraya 1964, Watson 1964" in text
    assert "\noption attention\t'kernel_regression'\n" in text
    main(["info", "resnet18_cbam"])
    text = capsys.readouterr().out
    assert "\nweights=, of resnet18: the attention is new\tlicence\t" in text
    assert "\na1_in1k (imagenet)\tApache-2.0\t" in text
    main(["list", "resnet18"])
    assert "a1_in1k and 6 more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["lst"], "unknown command 'lst'"),
        (["list", "resnet5"], "no model matches"),
        (["info", "resnet50_cbm"], "did you mean 'resnet50_cbam'"),
        (["info"], "required"),
        (["info", "resnet18", "--attention", "sse"], "attention='sse'"),
        (["train", "quickstrt"], "did you mean 'quickstart'"),
        (["train", "--epochs", "3"], "a recipe or a model comes first"),
        (["train", "quickstart", "--epoch", "3"], "did you mean '--epochs'"),
        (["train", "quickstart", "--epochs", "three"], "--epochs"),
        (["train", "quickstart", "--epochs", "0"], "epochs=0 must be at least 1"),
        (["train", "quickstart", "--smoke", "--model", "resnet5"], "unknown model"),
        (["train", "quickstart", "--smoke", "--output-dir", "/dev/null/x"], "cannot write"),
        (["evaluate", "absent.keras", "--dataset", "digits"], "no file at absent.keras"),
        (["evaluate", "absent.tflite", "--dataset", "digits"], "cannot read absent.tflite"),
        (["export", "resnet5", "out.tflite"], "unknown model"),
        (["export", "cifar_resnet20", "out.tflite", "--precision", "int8"], "needs calibration images"),
        (["export", "cifar_resnet20", "out.h5"], "must end in .tflite"),
        (["export", "cifar_resnet20", "out.tflite", "--dataset", "digits", "--images", "0"], "at least 1"),
        (["export", "x.keras", "out.tflite", "--weights", "y"], "has its own weights"),
        (["train", "quickstart", "--smoke", "--validation-fraction", "0.001"], "validation_fraction=0.001"),
    ],
)
def test_mistakes(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *args)
    assert not (tmp_path / "out.tflite").exists()


def test_files_that_are_none(digit_model, capsys, tmp_path):
    for name in ("broken.keras", "broken.tflite"):
        (tmp_path / name).write_bytes(digit_model.read_bytes()[:100])
        fails(capsys, "evaluate", str(tmp_path / name), "--dataset", "digits")


def test_export_then_evaluate_both(digit_model, capsys, tmp_path):
    output = tmp_path / "model.tflite"
    main(["export", str(digit_model), str(output), "--precision", "int8", "--dataset", "digits", "--images", "20"])
    text = capsys.readouterr().out
    assert "XNNPACK" in text
    assert "partitions" in text
    images, labels = kzoo.data.datasets.load_dataset("digits").test.arrays().values()
    expected = keras.saving.load_model(digit_model).predict(images.astype("float32"), verbose=0)
    main(["evaluate", str(digit_model), "--dataset", "digits"])
    assert f"{np.mean(expected.argmax(1) == labels):.2%}" in capsys.readouterr().out
    main(["evaluate", str(output), "--dataset", "digits"])
    assert "360" in capsys.readouterr().out


def test_wrong_dataset_for_a_model(capsys, tmp_path):
    kzoo.build("cifar_resnet20", depths=(1, 1, 1), widths=(4, 4, 4), num_classes=7).save(tmp_path / "seven.keras")
    assert "10 classes" in fails(capsys, "evaluate", str(tmp_path / "seven.keras"), "--dataset", "digits")


def test_evaluate_takes_the_size_that_its_error_advises(capsys, tmp_path):
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for size in range(30, 40):
                Image.fromarray(random.integers(0, 256, (size, 32, 3), dtype="uint8")).save(folder / f"{size}.png")
    model = str(tmp_path / "any.keras")
    kzoo.build("cifar_resnet20", input_shape=(None, None, 3), num_classes=2, depths=(1,), widths=(4,)).save(model)
    message = fails(capsys, "evaluate", model, "--dataset", str(tmp_path / "images"))
    assert "as in --image-size 224" in message
    for size in (["24"], ["24", "40"]):
        main(["evaluate", model, "--dataset", str(tmp_path / "images"), "--image-size", *size])
        assert "\ttest\t20 of 40\t" in capsys.readouterr().out
    fixed = str(tmp_path / "fixed.keras")
    kzoo.build("cifar_resnet20", num_classes=2, depths=(1,), widths=(4,)).save(fixed)
    message = fails(capsys, "evaluate", fixed, "--dataset", str(tmp_path / "images"), "--image-size", "24")
    assert "takes images of 32×32 alone, not 24×24 (--image-size)" in message
    main(["evaluate", fixed, "--dataset", str(tmp_path / "images"), "--image-size", "32"])


FLAG = re.compile(r"--[a-z][a-z-]*")


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_flags_that_errors_about_data_advise_are_those_of_the_command(command, capsys):
    """What the loaders of data sets say is said under every command that loads them."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    known = set(FLAG.findall(capsys.readouterr().out))
    root = Path(kzoo.__file__).parent / "data"
    loaders = [path for name in ("folders", "pairs", "mask_values", "tfds_sets") for path in root.glob(f"{name}.py")]
    assert len(loaders) == 4
    advised = {flag for path in loaders for flag in FLAG.findall(path.read_text(encoding="utf-8"))}
    needless = {"--image-size"} if command == "export" else set()  # a file has one size
    assert advised - needless <= known


FRAGMENTS = re.compile(r"(Of|For|Where|How|What|Ends|As|With|In|On|To|By) ")


PARTS = [kind for kinds in KINDS.values() for kind in kinds]


@pytest.mark.parametrize("form", [*FORMS.values(), Recipe, *PARTS], ids=lambda form: form.__name__)
def test_help_begins_with_what_the_option_is(form):
    """A noun or "Whether": what begins with "Of the run." makes sense beside the code alone."""
    helptext = re.findall(r'^    (\w+): [^\n]*(?:\n(?!    """)[^\n]*)*\n    """(\S+ )', inspect.getsource(form), re.M)
    assert form is not Recipe or len(helptext) == len(dataclasses.fields(Recipe))
    assert [(name, start) for name, start in helptext if FRAGMENTS.match(start)] == []


def test_a_warning_is_shown_once_in_a_command_inside_a_command(capsys):
    with user_errors(), user_errors():
        logging.getLogger("kzoo").warning("odd")
    assert capsys.readouterr().err == "kzoo: warning: odd\n"
