"""`kzoo explain` of detectors: which boxes, what the page and its files tell, two models, mistakes in a line."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import pixels, randomise
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.detection import Suppression
from kzoo.errors import InvalidValueError
from kzoo.explain.detections import found_boxes, same_boxes
from kzoo.explain.drawing import EDGE, LINE, draw_map
from kzoo.images import Pixels

TINY = dict(backbone="resnet18", backbone_options=dict(widths=(4, 6, 8, 10), depths=(1, 1, 1, 1)), channels=8)
TINY |= dict(head_depth=1, head_groups=4, num_classes=3, input_shape=(48, 64, 3))
NAMES = ("RBC", "<b>WBC</b>", "Platelets")
RULE = Suppression(score=0.05, candidates=1000, overlap=0.3, most=20)
MANY = Suppression(score=0.3, candidates=100, overlap=0.5, most=20)

BOXES = np.float32([[0, 0, 8, 8], [20, 20, 30, 30], [40, 0, 50, 10], [60, 60, 64, 64]])
SCORES = np.float32([[0.9, 0.1, 0.2], [0.1, 0.8, 0.2], [0.7, 0.1, 0.25], [0.1, 0.6, 0.01]])
OUTPUTS = {"boxes": BOXES[None], "scores": SCORES[None]}


def asked(**options) -> list[tuple[int, int]]:
    """Place and class of what is explained."""
    return [(box.place, box.class_index) for box in found_boxes(OUTPUTS, MANY, NAMES, **options)[1]]


def test_the_surest_boxes_are_explained_where_nobody_says_which():
    assert asked() == [(0, 0), (1, 1), (2, 0)]
    assert asked(classes=[1]) == [(1, 1), (3, 1)]
    assert asked(numbers=[4, 1, 4]) == [(3, 1), (0, 0)]
    rows, _ = found_boxes(OUTPUTS, MANY, NAMES)
    assert [row["number"] for row in rows] == [1, 2, 3, 4]
    assert rows[1] == {
        "number": 2,
        "class": NAMES[1],
        "index": 1,
        "place": 1,
        "score": pytest.approx(0.8),
        "box": [20, 20, 30, 30],
    }


def test_what_was_not_found_is_explained_by_the_surest_box_there_is():
    assert asked(classes=[2]) == [(2, 2)]
    rows, _ = found_boxes(OUTPUTS, MANY, NAMES, classes=[2])
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1]["score"] == pytest.approx(0.25)
    nothing = {"boxes": BOXES[None], "scores": 0.2 * SCORES[None]}
    rows, found = found_boxes(nothing, MANY, NAMES)
    assert [(row["number"], row["place"]) for row in rows] == [(1, 0)] == [(1, found[0].place)]


@pytest.mark.parametrize(
    ("scores", "number", "message"),
    [
        (SCORES, 5, "box 5 is not there: 4 boxes found; give numbers from 1 to 4, the surest is 1"),
        (SCORES, 0, "box 0 is not there: 4 boxes found"),
        (0.1 * SCORES, 1, "box 1 is not there: 0 boxes found; leave it out"),
    ],
)
def test_a_number_that_is_not_there(scores, number, message):
    with pytest.raises(InvalidValueError, match=message):
        found_boxes({"boxes": BOXES[None], "scores": scores[None]}, MANY, NAMES, numbers=[number])


def test_the_same_box_of_another_model_overlaps_most_and_is_of_the_class():
    """The other model has its classes, its places and its unit in another order."""
    rows, _ = found_boxes(OUTPUTS, MANY, NAMES)
    order = [3, 0, 2, 1]
    others = {"boxes": BOXES[None, order] / 2, "scores": SCORES[None, order][..., [1, 0, 2]]}
    told, found = same_boxes(rows, others, BOXES[order], (NAMES[1], NAMES[0], NAMES[2]))
    assert [(box.place, box.class_index) for box in found] == [(1, 1), (3, 0), (2, 1), (0, 0)]
    assert [(row["number"], row["class"], row["box"]) for row in told] == [
        (row["number"], row["class"], [side / 2 for side in row["box"]]) for row in rows
    ]


def test_a_box_is_drawn_where_it_is():
    drawn = np.asarray(draw_map(np.full((40, 60, 3), 128), np.zeros((4, 6)), 1.0, (10, 5, 40, 30))).astype(int)
    times = drawn.shape[1] / 60
    lines = (np.abs(drawn - LINE).sum(axis=-1) == 0).nonzero()
    found = [lines[1].min() / times, lines[0].min() / times, lines[1].max() / times, lines[0].max() / times]
    np.testing.assert_allclose(found, [10, 5, 40, 30], atol=0.5)
    assert (np.abs(drawn - EDGE).sum(axis=-1) == 0).any()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("detectors")
    model = randomise(kzoo.build("fcos", **TINY))
    told = kzoo.with_classes(model, NAMES, Pixels("stretch"), suppression=RULE)
    told.save(folder / "cells.keras")
    kzoo.export(told, folder / "cells.tflite")
    for name, size in (("first", (128, 96)), ("second", (80, 90))):
        Image.fromarray(pixels(1, *size, 3)[0].astype("uint8")).save(folder / f"{name}.png")
    return {path.name: path for path in folder.iterdir()}


def explain(files, folder: Path, *words: str) -> dict:
    names = [str(files.get(word, word)) for word in words]
    main(["explain", *names, "--output", str(folder)])
    return json.loads((folder / "maps.json").read_text(encoding="utf-8"))


def test_the_page_tells_what_python_finds(files, tmp_path):
    told = explain(
        files, tmp_path / "page", "cells.keras", "first.png", "second.png", "--method", "hirescam", "occlusion"
    )
    model = keras.models.load_model(files["cells.keras"])
    for picture, name in zip(told["pictures"], ("first.png", "second.png"), strict=True):
        image = Pixels("stretch").read(files[name], (48, 64, 3))
        (found,) = kzoo.detect(model, [image])
        rows = picture["predictions"]
        np.testing.assert_allclose([row["score"] for row in rows], found.scores[:10], rtol=1e-4)
        np.testing.assert_allclose([row["box"] for row in rows], found.boxes[:10], atol=0.02)
        maps = [each for each in picture["maps"] if each["method"] == "hirescam"]
        assert [each["target"]["number"] for each in maps] == [1, 2, 3]
        for each, box in zip(maps, kzoo.explain.Box.of(found), strict=False):
            (values,) = kzoo.explain.hires_cam(model, image[None], box)
            assert each["layer"] == kzoo.explain.explained_layer(model, box)
            numbers = [each["smallest"], each["largest"], each["mean"]]
            np.testing.assert_allclose(numbers, [values.min(), values.max(), values.mean()], rtol=1e-3, atol=1e-5)
    html = (tmp_path / "page/index.html").read_text(encoding="utf-8")
    assert "<b>WBC</b>" not in html
    assert all(words in html for words in ("What the model finds", "of <bdi>fpn_p", "Deletion", "fpn_p7"))
    assert (tmp_path / "page/1_03_hirescam_box1.png").is_file()


def test_a_detector_beside_its_file(files, tmp_path):
    words = ("cells.keras", "first.png", "--compare", "cells.tflite", "--box", "2", "--maps-only")
    (picture,) = explain(files, tmp_path / "page", *words)["pictures"]
    (own,), (other,) = picture["maps"], picture["compared"]["maps"]
    assert own["method"] == other["method"] == "occlusion"
    assert own["target"] == other["target"] | {"box": own["target"]["box"]}
    np.testing.assert_allclose([own["score"], own["largest"]], [other["score"], other["largest"]], rtol=1e-3)
    assert picture["compared"]["correlations"] == [{"method": "occlusion", "target": 2, "correlation": 1.0}]


def test_a_file_by_itself(files, tmp_path):
    told = explain(files, tmp_path / "page", "cells.tflite", "second.png", "--target", "Platelets")
    assert {each["target"]["class"] for each in told["pictures"][0]["maps"]} == {"Platelets"}
    assert told["trust"][0]["scores"]["deletion"]["map"]["mean"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--box", "99"], "box 99 is not there"),
        (["--box", "1", "--target", "RBC"], "--box tells which boxes are explained, and --target of which classes"),
        (["--target", "dog"], "has no class 'dog'"),
        (["--method", "eigencam"], "eigencam asks for no box, and .* on 5 maps: give a layer, such as fpn_p3"),
    ],
)
def test_mistakes_are_one_line(words, message, files, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["explain", str(files["cells.keras"]), str(files["first.png"]), "--output", str(tmp_path / "x"), *words])
    assert not (tmp_path / "x").exists()
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_boxes_are_asked_of_detectors_alone(tmp_path, files, capsys):
    model = kzoo.build("simple_cnn", input_shape=(16, 16, 3), num_classes=3)
    model.save(tmp_path / "classes.keras")
    words = [str(tmp_path / "classes.keras"), str(files["first.png"]), "--output", str(tmp_path / "x"), "--box", "1"]
    with pytest.raises(SystemExit):
        main(["explain", *words])
    assert "--box is of detectors" in capsys.readouterr().err
