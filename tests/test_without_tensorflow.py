"""kzoo on JAX where TensorFlow cannot be imported: the numbers of TensorFlow, and one error for what needs it.

One process on JAX answers the cases of `without_tensorflow.py`; the answers are compared with those of this process.
"""

import functools
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import make_recipe, slow_but
from without_tensorflow import CASES, answers_of, write_files

import kzoo
from kzoo.check.jax_process import JaxProcess, jax_environment
from kzoo.errors import BackendError
from kzoo.needs import need_tensorflow, need_tensorflow_backend
from kzoo.report.probabilities import Probabilities
from kzoo.tasks.classification import Classification
from kzoo.train.card import model_card
from kzoo.train.finish import environment

HERE = Path(__file__).parent
# Python imports this as `sitecustomize` when it starts, in the processes that kzoo starts too
ABSENT = """
import sys
from importlib.machinery import PathFinder


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in ("tensorflow", "tensorflow_datasets")
        return None if absent else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""
# what takes a second or two, and the rest, which the slow tests ask in a process of its own
DEFAULT = (
    "weights_of_every_format",
    "a_training_run",
    "batches_of_training",
    "operations_by_magnitude",
    "several_steps_in_one_program",
    "a_saved_model_is_judged",
    "taps_and_features",
    "predicted_classes",
    "predicted_masks",
    "predicted_by_a_litert_file",
)
SLOW = tuple(name for name in CASES if name not in DEFAULT)
TOLERANCE = 1e-5  # of float32 sums in another order, relative to the largest number of an array
FLIPPED = 1e-3  # share of the pixels of a mask whose best two classes are as probable as each other, to rounding
# steps through the statistics of batches, and geometry that takes the other of two nearest pixels at a tie
LOOSE = {
    **dict.fromkeys(("transfer_by_fit", "a_training_run", "several_steps_in_one_program"), 1e-4),
    "a_run_of_averages": 1e-3,
    "random_changes": 0.1,
}


@pytest.fixture(scope="module")
def absent(tmp_path_factory) -> dict[str, str]:
    """The environment of a process in which TensorFlow cannot be imported."""
    folder = tmp_path_factory.mktemp("absent")
    (folder / "sitecustomize.py").write_text(ABSENT)
    return jax_environment() | {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(kzoo.__file__).parents[1])])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    return folder


@pytest.fixture(scope="module")
def on_jax(folder, absent) -> Callable[[Sequence[str]], dict]:
    if not JaxProcess.available():
        pytest.skip("jax is not installed")

    @functools.cache
    def ask(names: Sequence[str]) -> dict:
        answers = folder / "answers.json"
        command = [sys.executable, HERE / "without_tensorflow.py", answers, folder, *names]
        child = subprocess.run(command, env=absent, capture_output=True, text=True, timeout=600)
        assert child.returncode == 0, child.stderr[-3000:]
        return json.loads(answers.read_text())

    return ask


def assert_agree(actual, expected, tolerance: float, where: str) -> None:
    """Texts and lone integers are equal; numbers differ by at most `tolerance` times the largest of their array."""
    assert type(actual) is type(expected), where
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), where
        for key in expected:
            assert_agree(actual[key], expected[key], tolerance, f"{where}, {key}")
    elif isinstance(expected, float) or (isinstance(expected, list) and is_array(expected)):
        ours, theirs = np.array(actual), np.array(expected)
        assert ours.shape == theirs.shape, where
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max(), where
    elif isinstance(expected, list) and is_array(expected, "i"):
        assert np.mean(np.array(actual) != np.array(expected)) <= FLIPPED, where
    elif isinstance(expected, list):
        assert len(actual) == len(expected), where
        for number, pair in enumerate(zip(actual, expected, strict=True)):
            assert_agree(*pair, tolerance, f"{where}, {number}")
    else:
        assert actual == expected, where


def is_array(value: list, kind: str = "f") -> bool:
    """Whether nested lists are an array of floating-point numbers, or of integers ("i")."""
    try:
        array = np.array(value)
    except ValueError:  # of several lengths
        return False
    return array.dtype.kind == kind and array.size > 0


@pytest.mark.parametrize("name", slow_but(DEFAULT, CASES))
def test_jax_alone_gives_the_numbers_of_tensorflow(name, on_jax, folder):
    (expected,) = answers_of(folder, [name]).values()
    actual = on_jax(DEFAULT if name in DEFAULT else SLOW)[name]
    assert "failure" not in expected, expected["failure"]
    assert "failure" not in actual, actual["failure"]
    assert_agree(actual["answer"], expected["answer"], LOOSE.get(name, TOLERANCE), name)


def test_tensorflow_was_not_there(on_jax):
    assert on_jax(DEFAULT)["loaded"] == []


def test_what_needs_tensorflow_says_so_before_any_work(on_jax):
    said = on_jax(DEFAULT)["refusals"]
    assert list(said) == ["export", "export_all", "kzoo export", "kzoo check", "kzoo bench"]
    for work, line in said.items():
        assert line.startswith(("BackendError: ", "2: kzoo: ")), work
        assert line.strip().endswith(
            "needs TensorFlow, which is not installed; pip install tensorflow, and set KERAS_BACKEND=tensorflow"
        ), work
        assert line.strip().count("\n") == 0, work


def test_keras_with_a_backend_that_is_not_there_is_one_line(absent):
    code = "from kzoo.cli import main; main(['info', 'resnet18'])"
    told = absent | {"KERAS_BACKEND": "tensorflow"}
    child = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, timeout=300)
    said = "Keras needs TensorFlow, which is not installed; pip install tensorflow, or set KERAS_BACKEND=jax"
    assert (child.returncode, child.stderr) == (2, f"kzoo: {said}\n")


def test_data_that_need_tensorflow_are_one_line(absent):
    code = "from kzoo.console import user_errors\nwith user_errors(): import tensorflow_datasets.core"
    child = subprocess.run([sys.executable, "-c", code], env=absent, capture_output=True, text=True, timeout=300)
    said = "kzoo: this needs tensorflow-datasets, which is not installed; pip install tensorflow-datasets\n"
    assert (child.returncode, child.stderr) == (2, said)


def test_what_is_needed_is_there():
    need_tensorflow("this")
    need_tensorflow_backend("this")


def test_another_backend_is_named(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(BackendError, match=r"^this needs KERAS_BACKEND=tensorflow, and it is 'jax'$"):
        need_tensorflow_backend("this")


def test_the_report_and_the_card_name_the_backend(on_jax):
    told = on_jax(DEFAULT)["environment"]
    assert told["backend"] == "jax"
    assert told["jax"] == version("jax")
    assert told["accelerators"] == 0  # JAX_PLATFORMS=cpu
    assert "tensorflow" not in told
    assert f"({told['machine']}, JAX {told['jax']}, Keras {told['keras']},\n0 accelerators)" in card(told)
    here = environment()
    assert (here["backend"], here["tensorflow"]) == ("tensorflow", tf.__version__)
    assert f", TensorFlow {tf.__version__}, Keras" in card(here)


def test_cards_of_older_reports_name_tensorflow():
    path = HERE.parent / "saved_models" / "cifar10_resnet20" / "report.json"
    old = json.loads(path.read_text())["environment"]
    assert "backend" not in old
    assert f", TensorFlow {old['tensorflow']}, Keras" in card(old)


def card(environment: dict) -> str:
    scorer = Probabilities(("a", "b"))
    scorer.add(np.eye(2), {"label": np.arange(2)})
    row = dict(file="m.keras", **scorer.scores(), size_bytes=1, latency_ms=1.0, max_difference=0.0)
    report = {
        "kzoo": "1",
        "environment": environment,
        "dataset": dict(name="digits", classes=["a", "b"], train=1, validation=1, test=1),
        "input_shape": [8, 8, 3],
        "models": {"keras": row},
        "exports": {},
        "pictures": {},
        "best_epoch": 1,
        "training_seconds": 1,
    }
    return model_card(make_recipe("name", "cifar_resnet20", "digits"), Classification(), report)


def test_the_page_lists_what_is_needed_without_tensorflow():
    """All that kzoo requires, but for what serves TensorFlow, export and TFDS alone."""
    with (HERE.parent / "pyproject.toml").open("rb") as file:
        required = tomllib.load(file)["project"]["dependencies"]
    names = {re.match(r"[\w-]+", line)[0] for line in required}
    without = {"tensorflow", "tensorflow-datasets", "importlib_resources", "tensorboard", "litert-quantizer"}
    page = (HERE.parent / "kzoo" / "layers" / "README.md").read_text()
    listed = re.search(r"pip install --no-deps -e \.\npip install jax (.+)\npip install (.+)\n", page)
    assert {*listed[1].split(), *listed[2].split()} == names - without
