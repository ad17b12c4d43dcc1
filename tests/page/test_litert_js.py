"""Files under LiteRT.js in Node answer as in Python, by the sample of recipes/samples/javascript."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pages import NODE_MODULES, needs_packages

from kzoo.images import read_picture
from kzoo.page import SCRIPT
from kzoo.predict.classifier import open_classifier, open_model
from kzoo.predict.segmenter import as_segmenter, class_areas

pytestmark = [needs_packages, pytest.mark.skipif(shutil.which("node") is None, reason="needs node")]
SAMPLE = Path(__file__).parents[2] / "recipes/samples/javascript"


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """The sample as its page says: kzoo.js beside it, and the packages of npm."""
    folder = shutil.copytree(SAMPLE, tmp_path_factory.mktemp("sample") / "javascript")
    shutil.copy(SCRIPT, folder)
    (folder / "node_modules").symlink_to(NODE_MODULES.resolve(), target_is_directory=True)
    return folder


def answers(sample: Path, model: Path, *pictures: Path) -> list:
    done = subprocess.run(
        ["node", "predict.js", model, *pictures], cwd=sample, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["image"] for each in told] == [str(path) for path in pictures]
    return [each["answer"] for each in told]


@pytest.mark.parametrize("kind", ["classes", "grey", "bytes"])
def test_classes_are_those_of_python(kind, sample, files, pictures):
    shown = [pictures[name] for name in ("photo.png", "clear.png", "grey.jpg", "turned6.jpg")]
    classifier = open_classifier(str(files[kind]))
    for path, answer in zip(shown, answers(sample, files[kind], *shown), strict=True):
        probabilities = classifier.predict(classifier.pixels.read(path, classifier.input_shape)[None])[0]
        expected = classifier.top(probabilities, 5)
        assert [each["name"] for each in answer] == [each["class"] for each in expected]
        found, wanted = ([each["probability"] for each in told] for told in (answer, expected))
        np.testing.assert_allclose(found, wanted, atol=0.005 if path.suffix == ".jpg" else 1e-5, err_msg=path.name)


def test_maps_are_those_of_python(sample, files, pictures):
    segmenter = as_segmenter(open_model(str(files["map"])))
    mask = segmenter.segment(read_picture(pictures["photo.png"], 3))
    (answer,) = answers(sample, files["map"], pictures["photo.png"])
    expected = {each["class"]: each["share"] for each in class_areas(mask, segmenter.class_names) if each["share"]}
    assert {each["name"]: each["share"] for each in answer} == pytest.approx(expected, abs=1e-3)
