"""`kzoo predict` of a detector: drawings, crops, and a file that COCO's tools read."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from helpers import randomise
from PIL import Image
from pycocotools.coco import COCO

import kzoo
from kzoo.cli import main
from kzoo.detection.suppression import Suppression
from kzoo.edge import LiteRTModel
from kzoo.images import Pixels
from kzoo.images.boxes import draw_boxes
from kzoo.images.overlay import colours

SIZE = (48, 64)
TINY = dict(backbone="resnet18", backbone_options=dict(widths=(4, 6, 8, 10), depths=(1, 1, 1, 1)), channels=8)
TINY |= dict(head_depth=1, head_groups=4, num_classes=2, input_shape=(*SIZE, 3))
RULE = Suppression(score=0.1, candidates=1000, overlap=0.3, most=5)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A detector, and a folder with it as `cells.keras` and `cells.tflite`."""
    folder = tmp_path_factory.mktemp("cells")
    model = randomise(kzoo.build("fcos", **TINY))
    model = kzoo.with_classes(model, ["cat", "dog"], Pixels("pad"), suppression=RULE)
    model.save(folder / "cells.keras")
    kzoo.export(model, folder / "cells.tflite")
    return model, folder


@pytest.fixture
def files(saved, tmp_path, monkeypatch):
    """The detector, where its files and two pictures of other sizes are."""
    model, folder = saved
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    rng = np.random.default_rng(0)
    for name, size in (("one", (90, 130)), ("two", (70, 40))):
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype("uint8")).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return model


@pytest.mark.parametrize("file", ["cells.keras", "cells.tflite"])
def test_boxes_are_those_of_detect(files, tmp_path, capsys, file):
    main(["predict", file, "one.png", "two.png", "--json"])
    read = json.loads(capsys.readouterr().out)
    found = kzoo.detect(files, [tmp_path / "one.png", tmp_path / "two.png"], Pixels("pad"), RULE)
    for result, each, size in zip(read, found, ((130, 90), (40, 70)), strict=True):
        assert (result["width"], result["height"]) == size
        assert [row["index"] for row in result["boxes"]] == each.classes.tolist()
        assert [row["class"] for row in result["boxes"]] == [("cat", "dog")[index] for index in each.classes]
        np.testing.assert_allclose([row["score"] for row in result["boxes"]], each.scores, atol=1e-4)
        np.testing.assert_allclose([row["box"] for row in result["boxes"]], each.boxes, atol=0.05)
        assert Image.open(result["drawing"]).width >= size[0]
    assert sum(len(each) for each in found) > 3

    coco = COCO(str(tmp_path / "predictions" / "detections.json"))
    assert [each["file_name"] for each in coco.loadImgs([1, 2])] == ["one.png", "two.png"]
    assert [each["name"] for each in coco.loadCats([1, 2])] == ["cat", "dog"]
    loaded = coco.loadRes(coco.dataset["annotations"])
    rows = loaded.loadAnns(loaded.getAnnIds(imgIds=[1]))
    expected = [[left, top, right - left, bottom - top] for left, top, right, bottom in found[0].boxes.tolist()]
    np.testing.assert_allclose([row["bbox"] for row in rows], expected, atol=0.1)
    assert [row["category_id"] - 1 for row in rows] == found[0].classes.tolist()


def test_score_and_crops(files, tmp_path, capsys):
    [whole] = kzoo.detect(files, [tmp_path / "one.png"], Pixels("pad"), dataclasses.replace(RULE, score=0.0))
    middle = float(np.mean(whole.scores[:2]))
    main(["predict", "cells.keras", "one.png", "--json", "--score", str(middle), "--crops", "--output-dir", "out"])
    [result] = json.loads(capsys.readouterr().out)
    assert len(result["boxes"]) == (whole.scores > middle).sum() >= 1
    picture = np.asarray(Image.open("one.png"))
    for row in result["boxes"]:
        left, top, right, bottom = row["box"]
        expected = picture[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
        np.testing.assert_array_equal(np.asarray(Image.open(row["crop"])), expected)


def test_a_table_of_boxes(files, capsys):
    main(["predict", "cells.keras", "one.png"])
    out = capsys.readouterr().out
    assert "one.png → predictions/one_boxes.png" in out
    assert "left" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tiles"], "--tiles goes with a model for segmentation, which cells.keras is not"),
        (["--top", "3"], "--top goes with a classifier"),
        (["--heatmap"], "--heatmap goes with a classifier"),
        (["--score", "2"], "--score 2.0 must be from 0 to 1"),
        (["--resize", "crop"], "leaves out the borders of pictures"),
        (["two.png", "folder/two.png"], "would both be written as predictions/two_boxes.png"),
        (["--output-dir", "cells.keras"], "cannot write"),
    ],
)
def test_what_does_not_fit_is_one_line(files, tmp_path, capsys, options, message):
    (tmp_path / "folder").mkdir()
    Image.open("two.png").save("folder/two.png")
    with pytest.raises(SystemExit):
        main(["predict", "cells.keras", "one.png", *options])
    error = capsys.readouterr().err
    assert message in " ".join(error.split())
    assert "Traceback" not in error


def test_crops_write_over_no_picture_that_is_given(files, tmp_path, capsys):
    Image.new("RGB", (9, 9)).save("one_box1.png")
    before = (tmp_path / "one_box1.png").read_bytes()
    command = ["predict", "cells.keras", "one.png", "one_box1.png", "--output-dir", "."]
    with pytest.raises(SystemExit):
        main([*command, "--crops"])
    error = " ".join(capsys.readouterr().err.split())
    assert "one_box1.png is called as a crop of a former run, and may be written over; leave it out" in error
    assert not (tmp_path / "one_boxes.png").exists()
    main(command)
    assert (tmp_path / "one_boxes.png").exists()
    assert (tmp_path / "one_box1.png").read_bytes() == before


@pytest.mark.parametrize("kind", ["turned", "grey", "RGBA", "tiny", "slim"])
def test_pictures_of_any_kind(files, tmp_path, capsys, kind):
    """Boxes are in the upright picture, whatever the camera said, and crops are parts of it."""
    pixels = np.random.default_rng(1).integers(0, 256, (60, 90, 4)).astype("uint8")
    pixels[..., 3] = 255
    picture, options = Image.fromarray(pixels[..., :3]), {}
    if kind == "turned":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6  # to be turned clockwise by a quarter
        upright = picture.transpose(Image.Transpose.ROTATE_270)
    else:
        if kind in ("tiny", "slim"):
            picture = picture.resize((1, 1 if kind == "tiny" else 900))
        picture = picture.convert("L") if kind == "grey" else Image.fromarray(pixels) if kind == "RGBA" else picture
        upright = picture.convert("RGB")
    picture.save("any.png", **options)
    main(["predict", "cells.keras", "any.png", "--json", "--crops", "--score", "0"])
    [result] = json.loads(capsys.readouterr().out)
    assert (result["width"], result["height"]) == upright.size
    assert result["boxes"]
    for row in result["boxes"]:
        left, top, right, bottom = row["box"]
        assert 0 <= left <= right <= upright.width
        assert 0 <= top <= bottom <= upright.height
        left, top = min(int(left), upright.width - 1), min(int(top), upright.height - 1)
        part = left, top, max(int(np.ceil(right)), left + 1), max(int(np.ceil(bottom)), top + 1)
        np.testing.assert_array_equal(np.asarray(Image.open(row["crop"])), np.asarray(upright.crop(part)))


def test_others_have_no_boxes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kzoo.build("cifar_resnet20").save("m.keras")
    Image.new("RGB", (32, 32)).save("one.png")
    with pytest.raises(SystemExit):
        main(["predict", "m.keras", "one.png", "--crops"])
    assert "--crops goes with a detector, which m.keras is not" in " ".join(capsys.readouterr().err.split())


def test_a_broken_picture_is_told_and_the_others_are_found(files, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as end:
        main(["predict", "cells.tflite", "broken.png", "two.png", "--json"])
    assert end.value.code == 1
    captured = capsys.readouterr()
    assert [result["image"] for result in json.loads(captured.out)] == ["two.png"]
    assert "broken.png" in captured.err
    assert [each["file_name"] for each in json.loads((tmp_path / "predictions/detections.json").read_text())["images"]]
    assert LiteRTModel("cells.tflite").input_shape == (1, *SIZE, 3)


def test_lines_of_boxes_have_the_colour_of_their_class():
    picture = Image.new("RGB", (700, 500), "white")
    boxes, classes = np.array([[100, 120, 300, 320], [350.4, 90, 650, 460]]), np.array([1, 0])
    drawn = np.asarray(draw_boxes(picture, boxes, classes, ["cat", "dog"]))
    assert drawn.shape == (500, 700, 3)
    cat, dog = colours(["cat", "dog"])
    for row, column, colour in (
        (200, 100, dog), (319, 250, dog), (200, 299, dog), (300, 350, cat), (459, 500, cat), (300, 649, cat)
    ):  # fmt: skip
        np.testing.assert_array_equal(drawn[row, column], colour)
    assert (drawn[180:300, 120:280] == 255).all(), "inside there is the picture"
    assert (drawn[90:115, 100:140] == dog).all(axis=-1).any(), "the name stands above the box"


def test_dashes_and_small_pictures():
    whole, dashed = (
        np.asarray(
            draw_boxes(Image.new("RGB", (64, 48)), np.array([[8, 8, 56, 40]]), np.array([0]), ["x"], dashed=each)
        )
        for each in (None, np.array([True]))
    )
    assert whole.shape[0] > 48, "small pictures are enlarged"
    colour = colours(["x"])[0]
    count, gaps = ((each == colour).all(axis=-1).sum() for each in (whole, dashed))
    assert 0 < gaps < count
