"""What needs no Keras does not load it, and says nothing that was not asked for."""

import json
import os
import subprocess
import sys

import pytest

from kzoo.cli import COMMANDS
from kzoo.commands import forms

HEAVY = ("keras", "tensorflow", "tensorflow_datasets", "tensorboard", "sklearn", "matplotlib", "h5py")
LOADED = f"import sys; sys.stderr.write('loaded ' + ' '.join(name for name in {HEAVY} if name in sys.modules))"


def untold() -> dict[str, str]:
    """The environment of somebody who has told TensorFlow nothing of its logs."""
    return {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


def run(*code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", "\n".join(code)], env=untold(), capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["list", "resnet18*"],
        ["recipes"],
        ["completion", "bash"],
        ["__complete", "train", "quick"],
    ],
    ids=lambda args: args[0],
)
def test_light_commands_load_nothing_heavy(args):
    done = run("from kzoo.cli import main", "try:", f"    main({args!r})", "except SystemExit: pass", LOADED)
    assert done.stdout
    assert done.stderr == "loaded "


def test_cheap_mistakes_of_train_are_told_before_anything_heavy_is_loaded():
    mistakes = {
        "": "usage: kzoo train RECIPE",
        "resnet18x": "unknown recipe or model",
        "resnet18": "is a model; say what to train it on",
        "resnet18x digits": "unknown model",
        "quickstart digits": "is a recipe, which has its data",
        "resnet18 ./nowhere": "no folder at",
        "resnet18 nowhere/": "no folder at",
        "photos/ resnet18": "the model comes first",
        "quickstart --epoch 3": "unknown option --epoch",
        "--epochs 3": "a recipe or a model comes first",
    }
    done = run(
        *("import contextlib, sys", "from kzoo.cli import main"),
        *(f"for words in {list(mistakes)}:", "    try: main(['train', *words.split()])"),
        *("    except SystemExit as stop: print(f'exit {stop.code}', file=sys.stderr)", LOADED),
    )
    usage, *messages = mistakes.values()
    assert done.stdout.startswith(usage)
    stop, *told, loaded = done.stderr.splitlines()
    assert (stop, loaded) == ("exit 2", "loaded ")
    assert told[1::2] == ["exit 2"] * len(messages)
    for line, message in zip(told[::2], messages, strict=True):
        assert message in line


def test_import_kzoo_loads_nothing_heavy():
    assert run("import kzoo; kzoo.__version__", LOADED).stderr == "loaded "


@pytest.mark.parametrize("first", [pytest.param("kzoo", marks=pytest.mark.slow), "keras"])  # tests import kzoo first
def test_keras_knows_the_layers_whichever_was_imported_first(first):
    second = {"kzoo": "keras", "keras": "kzoo"}[first]
    done = run(
        f"import {first}, {second}",
        "text = {'module': 'kzoo.layers', 'class_name': 'CBAM', 'registered_name': 'kzoo>CBAM', 'config': {}}",
        "print(type(keras.saving.deserialize_keras_object(text)).__name__)",
    )
    assert done.stdout == "CBAM\n", done.stderr


def test_python_m_kzoo_is_quiet_with_tensorflow():
    """TensorFlow and absl tell of processors, devices and their own logging where nobody asked."""
    command = [sys.executable, "-m", "kzoo", "info", "cifar_resnet20", "--json"]
    done = subprocess.run(command, env=untold(), capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout)["trainable_parameters"] == 269722
    assert done.stderr == ""


def test_every_command_is_listed_with_a_form_and_a_module():
    assert [name for name in COMMANDS if name not in forms.FORMS] == ["train"]
    assert set(forms.FORMS) < set(COMMANDS)
